import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { monotonicMillis } from "../../internal/monotonic.ts"
import { type Ask, at, type Problem } from "./vaultClient.ts"

/**
 * Who we are to a Vault server.
 *
 * - `token`: what to send with a request.
 * - `mayRetry`: asked when the server has refused a token: whether there may be a better one by now.
 */
export interface Session {
  readonly token: Effect.Effect<Redacted.Redacted, Problem>
  readonly mayRetry: (refused: Redacted.Redacted) => Effect.Effect<boolean>
}

interface Lease {
  readonly token: Redacted.Redacted
  /** 0 does not end. */
  readonly seconds: number
  readonly isRenewable: boolean
}

const leaseOf = (token: unknown, seconds: unknown, isRenewable: unknown): Effect.Effect<Lease, Problem> =>
  typeof token === "string" && token !== "" && typeof seconds === "number" && seconds >= 0
    ? Effect.succeed({
      token: Redacted.make(token, { label: "vault-token" }),
      seconds,
      isRenewable: isRenewable === true
    })
    : Effect.fail("unreadable")

// The shape of every answer that gives a token.
const authOf = (answer: unknown): Effect.Effect<Lease, Problem> =>
  leaseOf(at(answer, "auth", "client_token"), at(answer, "auth", "lease_duration"), at(answer, "auth", "renewable"))

const lookUpSelf = (ask: Ask, token: Redacted.Redacted): Effect.Effect<Lease, Problem> =>
  Effect.flatMap(
    ask({ method: "GET", path: ["auth", "token", "lookup-self"], token }),
    (answer) => leaseOf(Redacted.value(token), at(answer, "data", "ttl"), at(answer, "data", "renewable"))
  )

const renewSelf = (ask: Ask, token: Redacted.Redacted): Effect.Effect<Lease, Problem> =>
  Effect.flatMap(ask({ method: "POST", path: ["auth", "token", "renew-self"], token, body: {} }), authOf)

// Early enough that some failures may come in between.
const renewAfter = (seconds: number): number => Math.max(1000, (seconds * 1000 * 2) / 3)

const warn = (what: string, problem: Problem): Effect.Effect<void> =>
  Effect.logWarning(`effect-toolops: ${what}: ${problem}`)

/** Tries again, less and less often, for as long as it may help. */
const persist = <A>(
  what: string,
  effect: Effect.Effect<A, Problem>,
  mayHelp: (problem: Problem) => boolean
): Effect.Effect<A, Problem> => {
  const attempt = (delay: number): Effect.Effect<A, Problem> =>
    Effect.catch(effect, (problem) =>
      Effect.andThen(
        warn(what, problem),
        mayHelp(problem)
          ? Effect.andThen(Effect.sleep(delay), Effect.suspend(() => attempt(Math.min(60_000, delay * 2))))
          : Effect.fail(problem)
      ))
  return attempt(1000)
}

const isPassing = (problem: Problem): boolean => problem === "failed" || problem === "timeout" || problem === "sealed"

/** A token of the user's, kept alive for as long as Vault allows. */
export const tokenSession = (
  ask: Ask,
  token: Redacted.Redacted
): Effect.Effect<Session, never, Scope.Scope> => {
  const what = "the Vault token could not be renewed"
  const keepAlive = Effect.gen(function*() {
    let lease = yield* persist(what, lookUpSelf(ask, token), isPassing)
    // What does not end is not renewed, and what is renewed up to its last second is over.
    while (lease.isRenewable && lease.seconds >= 1) {
      yield* Effect.sleep(renewAfter(lease.seconds))
      lease = yield* persist(what, renewSelf(ask, token), isPassing)
    }
  })
  return Effect.as(Effect.forkScoped(Effect.ignore(keepAlive)), {
    token: Effect.succeed(token),
    mayRetry: () => Effect.succeed(false)
  })
}

interface Login extends Lease {
  readonly firstSeconds: number
  readonly expiresAt: number
}

// A policy that does not allow something refuses it to every token, so a new login is tried seldom.
const cooldownMillis = 30_000

// Those who need a login share the failure of one instead of adding to what a server cannot do.
const failureMillis = 1000

/** Tokens that Vault gives for a service account of Kubernetes. Logs in again before the old token ends. */
export const kubernetesSession = (
  ask: Ask,
  account: {
    readonly mount: ReadonlyArray<string>
    readonly role: string
    readonly jwt: Effect.Effect<string, Problem>
  }
): Effect.Effect<Session, never, Scope.Scope> =>
  Effect.gen(function*() {
    const turns = Semaphore.makeUnsafe(1)
    let current: Login | undefined = undefined
    let attemptedAt = -Infinity
    let failure: { readonly problem: Problem; readonly at: number } | undefined = undefined

    const keep = (lease: Lease, before: Login | undefined): Effect.Effect<Login> =>
      Effect.withFiber((fiber) => {
        const now = monotonicMillis(fiber)
        const login: Login = {
          ...lease,
          firstSeconds: before?.firstSeconds ?? lease.seconds,
          expiresAt: lease.seconds === 0 ? Infinity : now + lease.seconds * 1000
        }
        current = login
        return Effect.succeed(login)
      })

    // One at a time. What it replaces stays until there is something better.
    const logIn: Effect.Effect<Login, Problem> = Effect.withFiber((fiber) => {
      attemptedAt = monotonicMillis(fiber)
      // The file is read anew every time: Kubernetes replaces what is in it.
      return Effect.flatMap(account.jwt, (jwt) =>
        ask({ method: "POST", path: ["auth", ...account.mount, "login"], body: { role: account.role, jwt } })).pipe(
          Effect.flatMap(authOf),
          // There is no such way to log in, which says nothing about the secret.
          Effect.mapError((problem): Problem =>
            problem === "not found" ? "failed" : problem
          ),
          Effect.tapError((problem) =>
            Effect.sync(() => {
              failure = { problem, at: monotonicMillis(fiber) }
            })
          ),
          Effect.flatMap((lease) => keep(lease, undefined))
        )
    })

    const valid = (now: number): Login | undefined =>
      current !== undefined && now < current.expiresAt ? current : undefined

    const login: Effect.Effect<Login, Problem> = Effect.withFiber((fiber) => {
      const known = valid(monotonicMillis(fiber))
      if (known !== undefined) return Effect.succeed(known)
      const another = Effect.suspend(() => {
        const now = monotonicMillis(fiber)
        const since = valid(now)
        if (since !== undefined) return Effect.succeed(since)
        return failure !== undefined && now - failure.at < failureMillis ? Effect.fail(failure.problem) : logIn
      })
      return Semaphore.withPermit(turns, another)
    })

    /** A login in the place of one, unless somebody else has put another there. */
    const replace = (old: Login): Effect.Effect<unknown, Problem> =>
      Semaphore.withPermit(turns, Effect.suspend(() => current === old ? logIn : Effect.void))

    const renew = (old: Login): Effect.Effect<unknown, Problem> =>
      Effect.flatMap(renewSelf(ask, old.token), (lease) => {
        // While this was asked, somebody may have logged in anew.
        if (current !== old) return Effect.void
        // Vault gives less and less as the token nears the end that no renewal moves.
        return lease.seconds * 2 < old.firstSeconds ? Effect.fail("failed") : keep({ ...lease, token: old.token }, old)
      })

    const what = "the login to Vault could not be renewed"
    const keepAlive = Effect.gen(function*() {
      while (true) {
        const old = yield* persist("the login to Vault failed", login, () => true)
        if (old.expiresAt === Infinity) return
        const left = yield* Effect.withFiber((fiber) => Effect.succeed(old.expiresAt - monotonicMillis(fiber)))
        yield* Effect.sleep(renewAfter(left / 1000))
        if (current !== old) continue
        const renewed = old.isRenewable ? renew(old) : Effect.fail<Problem>("failed")
        yield* Effect.catch(Effect.catch(renewed, () => replace(old)), (problem) => warn(what, problem))
      }
    })
    yield* Effect.forkScoped(Effect.ignore(keepAlive))

    return {
      token: Effect.map(login, ({ token }) => token),
      // In turn, so that all those who were refused wait for the one login.
      mayRetry: (refused) =>
        Semaphore.withPermit(
          turns,
          Effect.withFiber((fiber) => {
            if (current?.token !== refused) return Effect.succeed(true)
            if (monotonicMillis(fiber) - attemptedAt < cooldownMillis) return Effect.succeed(false)
            return Effect.catch(Effect.as(logIn, true), (problem) => Effect.as(warn(what, problem), false))
          })
        )
    }
  })
