/**
 * Finds out who is calling from the headers of a request.
 *
 * One rule for all authenticators: a credential that is absent is none, one that is present and bad fails, and nothing
 * falls through from a bad one to the next authenticator or to the anonymous caller. An authenticator that dies refuses
 * the call as `AuthUnavailable`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Check from "../internal/options.ts"
import type { RequestHeadersInput } from "../ToolCall.ts"
import { type ByIssuer, byIssuer } from "./AuthenticatorIssuers.ts"
import * as AuthError from "./AuthError.ts"
import * as Identity from "./Identity.ts"
import { askAll } from "./internal/askAll.ts"
import { type Answer, callerOf, find, findNow } from "./internal/findCaller.ts"
import type { Now } from "./internal/now.ts"

export * from "./AuthenticatorHeaders.ts"
export * from "./AuthenticatorIssuers.ts"

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
  /** @internal */
  readonly "~now"?: Now | undefined
}

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
 * - `schemes`: the `Authorization` schemes it reads. Default none. A request with a credential of a scheme that nobody
 *   reads is refused, whatever else it shows.
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
export const make = (options: Options): Service => {
  Check.known("Authenticator.make", options, ["authenticate", "schemes"])
  if (typeof options.authenticate !== "function") {
    throw new TypeError("Authenticator.make: authenticate must be a function")
  }
  const schemes = Object.freeze([...options.schemes ?? []])
  if (!schemes.every((scheme) => typeof scheme === "string" && /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$/.test(scheme))) {
    throw new TypeError("Authenticator.make: schemes must hold names of authentication schemes")
  }
  return { authenticate: options.authenticate, anonymous: Option.none(), schemes }
}

/** @internal An authenticator whose answers may be there already. */
export const makeNow = (options: Options, answer: Now["answer"]): Service => ({
  ...make(options),
  "~now": { of: options.authenticate, answer }
})

const knowsNobody = () => Effect.succeedNone

/**
 * The authenticator that knows nobody and takes a caller without a credential for `Identity.anonymous`, or for the
 * identity given, whose method is then `anonymous` whatever it was: limits and caches go by that.
 *
 * @category constructors
 * @since 0.1.0
 */
export const anonymous = (identity: Identity.Identity = Identity.anonymous): Service => ({
  authenticate: knowsNobody,
  "~now": { of: knowsNobody, answer: () => Option.none() },
  anonymous: Option.some(
    Identity.isAnonymous(identity) ? identity : Identity.make({ ...identity, method: Identity.anonymous.method })
  ),
  schemes: []
})

/**
 * Asks the given authenticators in order and takes the first caller that one of them finds.
 *
 * **Details**
 *
 * All are asked, so a bad credential fails also when a good one of another kind stands beside it. So do two good ones of
 * different callers. Where the anonymous authenticator stands in the list does not matter: it counts when nothing was
 * presented.
 *
 * @category constructors
 * @since 0.1.0
 */
export const firstOf = (...authenticators: ReadonlyArray<Service>): Service => {
  if (authenticators.length === 0) throw new TypeError("Authenticator.firstOf: needs at least one authenticator")
  return {
    ...askAll(authenticators),
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
 * Provides `byIssuer` with the authenticators that the given layers provide.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerByIssuer = <E = never, R = never>(
  options: ByIssuer<Layer.Layer<Authenticator, E, R>>
): Layer.Layer<Authenticator, E, Exclude<R, Scope.Scope>> => {
  const build = (layer: Layer.Layer<Authenticator, E, R>) =>
    Effect.map(Layer.build(layer), (context) => Context.get(context, Authenticator))
  return Layer.effect(
    Authenticator,
    Effect.gen(function*() {
      const issuers: Array<readonly [string, Service]> = []
      for (const [issuer, layer] of Object.entries(options.issuers)) issuers.push([issuer, yield* build(layer)])
      const opaque = options.opaque === undefined ? undefined : yield* build(options.opaque)
      return byIssuer({ issuers: Object.fromEntries(issuers), opaque })
    })
  )
}

/**
 * Finds the caller of a request, whoever it is: the one with a credential, else the anonymous one where that is allowed,
 * else a failure. For edges that do not go through `AuthMiddleware`.
 *
 * **Details**
 *
 * Never dies: a defect of the authenticator is `AuthUnavailable`, and so is an answer that is no identity. One that has
 * expired is refused as `TokenExpired`. An `Authorization` header that no authenticator reads is a bad credential, not an
 * absent one.
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
    const settle = (answer: Answer) => {
      const caller = callerOf(authenticator, answer)
      if (caller instanceof AuthError.AuthError) return Effect.fail(caller)
      return caller.expiresAt !== undefined &&
          Identity.isExpired(caller, fiber.getRef(Clock.Clock).currentTimeMillisUnsafe())
        ? Effect.fail(AuthError.refused("TokenExpired"))
        : Effect.succeed(caller)
    }
    return known === undefined ? Effect.flatMap(find(authenticator, headers), settle) : settle(known)
  })
