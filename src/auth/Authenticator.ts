/**
 * Finds out who is calling from the headers of a request.
 *
 * One rule for all authenticators: a credential that is absent is none, one that is present and bad fails, and nothing
 * falls through from a bad one to the next authenticator or to the anonymous caller. An authenticator that dies refuses
 * the call as `AuthUnavailable`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { RequestHeadersInput } from "../ToolCall.ts"
import * as AuthError from "./AuthError.ts"
import * as Identity from "./Identity.ts"
import { ambiguous, authorization, header } from "./internal/credentials.ts"
import { type Answer, callerOf, find, findNow } from "./internal/findCaller.ts"
import { settled } from "./internal/settled.ts"

/**
 * What an authenticator is.
 *
 * - `authenticate`: the caller that the headers prove, none without a credential of its kind, else a failure.
 * - `anonymous`: who calls when nothing was presented. Without it such calls are refused.
 * - `schemes`: the `Authorization` schemes it reads, for `WWW-Authenticate`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  readonly authenticate: (
    headers: RequestHeadersInput
  ) => Effect.Effect<Option.Option<Identity.Identity>, AuthError.AuthError>
  readonly anonymous: Option.Option<Identity.Identity>
  readonly schemes: ReadonlyArray<string>
  /** @internal The answer of `authenticate` where it is there already: most are, and a fiber costs more than they do. */
  readonly "~now"?: ((headers: RequestHeadersInput, fiber: Running) => Answer | undefined) | undefined
}

type Running = Fiber.Fiber<unknown, unknown>

/**
 * The authenticator of a program.
 *
 * @category services
 * @since 0.1.0
 */
export class Authenticator extends Context.Service<Authenticator, Service>()("effect-toolops/auth/Authenticator") {}

/**
 * What `make` takes.
 *
 * - `authenticate`: see `Service`. Use `header`, `bearer` and `basic` to read the headers.
 * - `schemes`: the `Authorization` schemes it reads. Default none.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly authenticate: Service["authenticate"]
  readonly schemes?: ReadonlyArray<string> | undefined
}

/**
 * Makes an authenticator of your own.
 *
 * **Example** (Checking a user name and a password)
 *
 * ```ts
 * import { Effect, Option, Redacted } from "effect"
 * import { AuthError, Authenticator, Identity } from "effect-toolops/auth"
 *
 * const passwords = Authenticator.make({
 *   schemes: ["Basic"],
 *   authenticate: (headers) =>
 *     Effect.flatMap(Authenticator.basic(headers), Option.match({
 *       onNone: () => Effect.succeedNone,
 *       onSome: ({ username, password }) =>
 *         username === "ada" && Redacted.value(password) === "an example only"
 *           ? Effect.succeedSome(Identity.make({ principal: username, method: "basic" }))
 *           : Effect.fail(new AuthError.AuthError({ reason: new AuthError.InvalidCredentials() }))
 *     }))
 * })
 *
 * const request = { Authorization: `Basic ${btoa("ada:an example only")}` }
 * const who = await Effect.runPromise(Authenticator.identify(passwords, request))
 * who.principal // => "ada"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Service => ({
  authenticate: options.authenticate,
  anonymous: Option.none(),
  schemes: Object.freeze([...options.schemes ?? []])
})

/** @internal An authenticator whose answers may be there already. */
export const makeNow = (options: Options, now: NonNullable<Service["~now"]>): Service => ({
  ...make(options),
  "~now": now
})

const none: Effect.Effect<Option.Option<never>> = Effect.succeedNone

const bad = (): Effect.Effect<never, AuthError.AuthError> => Effect.fail(AuthError.refused("InvalidCredentials"))

/**
 * The authenticator that knows nobody and takes a caller without a credential for `Identity.anonymous`, or for the
 * identity given.
 *
 * @category constructors
 * @since 0.1.0
 */
export const anonymous = (identity: Identity.Identity = Identity.anonymous): Service => ({
  authenticate: () => none,
  "~now": () => Option.none(),
  anonymous: Option.some(identity),
  schemes: []
})

/**
 * Asks the given authenticators in order and takes the first caller that one of them finds.
 *
 * **Details**
 *
 * All are asked, so a bad credential fails also when a good one of another kind stands beside it. Where the anonymous
 * authenticator stands in the list does not matter: it counts when nothing was presented.
 *
 * @category constructors
 * @since 0.1.0
 */
export const firstOf = (...authenticators: ReadonlyArray<Service>): Service => {
  if (authenticators.length === 0) throw new TypeError("Authenticator.firstOf: needs at least one authenticator")
  type Answer = Effect.Effect<Option.Option<Identity.Identity>, AuthError.AuthError>
  const ask = (headers: RequestHeadersInput, from: number, found: Option.Option<Identity.Identity>): Answer => {
    for (let i = from; i < authenticators.length; i++) {
      const answer = authenticators[i]!.authenticate(headers)
      // Most answers are there already, and then no fiber has to be asked.
      if (!settled(answer)) {
        if (!Effect.isEffect(answer)) return Effect.die(new TypeError("an authenticator must answer with an Effect"))
        return Effect.flatMap(answer, (next) => ask(headers, i + 1, Option.isNone(found) ? next : found))
      }
      if (answer._tag === "Failure") return answer
      if (Option.isNone(found)) found = answer.value
    }
    return Effect.succeed(found)
  }
  const now: Service["~now"] = (headers, fiber) => {
    let found: Option.Option<Identity.Identity> = Option.none()
    for (const one of authenticators) {
      const answer = one["~now"]?.(headers, fiber)
      // One that has to think about it: then all are asked the long way.
      if (answer === undefined) return undefined
      if (answer instanceof AuthError.AuthError) return answer
      if (Option.isNone(found)) found = answer
    }
    return found
  }
  return {
    "~now": authenticators.every((one) => one["~now"] !== undefined) ? now : undefined,
    authenticate: (headers) => ask(headers, 0, Option.none()),
    anonymous: authenticators.find((one) => Option.isSome(one.anonymous))?.anonymous ?? Option.none(),
    schemes: [...new Set(authenticators.flatMap((one) => one.schemes))]
  }
}

/**
 * Provides the authenticator that `make` makes.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Authenticator> => Layer.succeed(Authenticator, make(options))

/**
 * Provides the authenticator that lets everybody in as the anonymous caller, who has no roles and no scopes. It is the
 * explicit way to do without credentials; beside others, in `layerFirstOf`, it makes them optional.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerAnonymous: Layer.Layer<Authenticator> = Layer.succeed(Authenticator, anonymous())

/**
 * Provides `firstOf` the authenticators that the given layers provide.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFirstOf = <const Layers extends ReadonlyArray<Layer.Layer<Authenticator, any, any>>>(
  ...layers: Layers
): Layer.Layer<Authenticator, Layer.Error<Layers[number]>, Exclude<Layer.Services<Layers[number]>, Scope.Scope>> =>
  Layer.effect(
    Authenticator,
    Effect.map(
      Effect.forEach(
        layers as ReadonlyArray<
          Layer.Layer<Authenticator, Layer.Error<Layers[number]>, Layer.Services<Layers[number]>>
        >,
        Layer.build
      ),
      (contexts) => firstOf(...contexts.map((context) => Context.get(context, Authenticator)))
    )
  )

/**
 * The value of a header. None when it is not there, a failure when it is there more than once.
 *
 * @category headers
 * @since 0.1.0
 */
export const headerValue = (
  headers: RequestHeadersInput,
  name: string
): Effect.Effect<Option.Option<string>, AuthError.AuthError> => toOption(header(headers, name.toLowerCase()))

const toOption = (
  found: ReturnType<typeof header>
): Effect.Effect<Option.Option<string>, AuthError.AuthError> =>
  found === undefined ? none : found === ambiguous ? bad() : Effect.succeedSome(found)

/**
 * The token of `Authorization: Bearer <token>`. None without that header or with another scheme, a failure when there
 * is not exactly one well-formed token.
 *
 * @category headers
 * @since 0.1.0
 */
export const bearer = (
  headers: RequestHeadersInput
): Effect.Effect<Option.Option<Redacted.Redacted<string>>, AuthError.AuthError> =>
  Effect.map(toOption(authorization(headers, "bearer")), Option.map((token) => Redacted.make(token)))

/**
 * The user name and the password of `Authorization: Basic <base64>` (RFC 7617, in UTF-8).
 *
 * @category headers
 * @since 0.1.0
 */
export const basic = (
  headers: RequestHeadersInput
): Effect.Effect<
  Option.Option<{ readonly username: string; readonly password: Redacted.Redacted<string> }>,
  AuthError.AuthError
> =>
  Effect.suspend(() => {
    const found = authorization(headers, "basic")
    if (found === undefined) return none
    const text = found === ambiguous || found.length > 16_384 ? undefined : decodeBasic(found)
    const colon = text === undefined ? -1 : text.indexOf(":")
    return text === undefined || colon === -1
      ? bad()
      : Effect.succeedSome({ username: text.slice(0, colon), password: Redacted.make(text.slice(colon + 1)) })
  })

const decodeBasic = (encoded: string): string | undefined => {
  try {
    const bytes = Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0))
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/**
 * Finds the caller of a request, whoever it is: the one with a credential, else the anonymous one where that is allowed,
 * else a failure. For edges that do not go through `AuthMiddleware`.
 *
 * **Details**
 *
 * Never dies: a defect of the authenticator is `AuthUnavailable`. An `Authorization` header that no authenticator reads
 * is a bad credential, not an absent one.
 *
 * @category running
 * @since 0.1.0
 */
export const identify = (
  authenticator: Service,
  headers: RequestHeadersInput
): Effect.Effect<Identity.Identity, AuthError.AuthError> =>
  Effect.withFiber((fiber) => {
    const known = findNow(authenticator, headers, fiber)
    if (known !== undefined) {
      const caller = callerOf(authenticator, known)
      return caller instanceof AuthError.AuthError ? Effect.fail(caller) : Effect.succeed(caller)
    }
    return Effect.flatMap(find(authenticator, headers), (found) => {
      const caller = callerOf(authenticator, found)
      return caller instanceof AuthError.AuthError ? Effect.fail(caller) : Effect.succeed(caller)
    })
  })
