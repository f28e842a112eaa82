import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { monotonicMillis } from "../../internal/monotonic.ts"
import type { SecretResolver } from "../SecretResolver.ts"
import { CurrentUses, type Uses } from "./uses.ts"

interface Build<I> {
  readonly context: Context.Context<I>
  readonly scope: Scope.Closeable
  readonly uses: Uses
  users: number
  isOld: boolean
}

/** One build of a layer at a time for new users, and those before for as long as somebody uses them. */
export class Builds<I> {
  current: Build<I> | undefined = undefined
  isClosed = false
  readonly #closing = new Set<Fiber.Fiber<void>>()
  // The owner's: an old build ends in a fiber that has nothing to do with the call that used it last.
  readonly #context: Context.Context<never>

  constructor(context: Context.Context<never>) {
    this.#context = context
  }

  /** Waits for old builds that are about to end. */
  readonly settled: Effect.Effect<void> = Effect.suspend(() => Fiber.awaitAll(this.#closing)).pipe(Effect.asVoid)

  /** The present build, which stays until it is released. */
  readonly take: Effect.Effect<Build<I>> = Effect.suspend(() => {
    if (this.isClosed) return Effect.die(new Error("SecretConfig.refreshable: its scope has closed"))
    // There is one before anybody has this object.
    const build = this.current!
    build.users++
    return Effect.succeed(build)
  })

  /** The present build, which stays until the scope closes. */
  readonly borrow: Effect.Effect<Context.Context<I>, never, Scope.Scope> = Effect.map(
    Effect.acquireRelease(this.take, (build) => this.release(build)),
    ({ context }) => context
  )

  /** Runs an effect with the present build, which stays until the effect ends. What the effect acquires is not closed here. */
  readonly use = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, I>> =>
    Effect.acquireUseRelease(
      this.take,
      ({ context }) => Effect.provideContext(effect, context),
      (build) => this.release(build)
    )

  release(build: Build<I>): Effect.Effect<void> {
    return Effect.sync(() => {
      build.users--
      this.closeUnused(build)
    })
  }

  /** Begins to close a build that is old, once its last user has gone. Nobody waits for it but the owner, at its end. */
  closeUnused(build: Build<I>): void {
    if (!build.isOld || build.users > 0) return
    // What goes wrong when something old ends may hold what the build was given.
    const closing = Effect.runForkWith(this.#context)(Effect.catchCause(
      Scope.close(build.scope, Exit.void),
      () => Effect.logWarning("effect-toolops: a layer that a newer one has replaced did not end well")
    ))
    this.#closing.add(closing)
    closing.addObserver(() => void this.#closing.delete(closing))
  }

  /** Puts a build in the place of the one before. */
  replace(next: Build<I>): void {
    const before = this.current
    this.current = next
    if (before === undefined) return
    before.isOld = true
    this.closeUnused(before)
  }

  /** Builds the layer, sharing nothing with earlier builds, and takes it as the present one. */
  build<E, R>(layer: Layer.Layer<I, E, R>, parent: Scope.Scope): Effect.Effect<Build<I>, E, R> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Scope.fork(parent), (scope) => {
        const uses: Uses = new Map()
        return restore(Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope)).pipe(
          Effect.provideService(CurrentUses, uses),
          Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)),
          Effect.map((context) => {
            const next: Build<I> = { context, scope, uses, users: 0, isOld: false }
            this.replace(next)
            return next
          })
        )
      })
    )
  }
}

/** Ends when a text comes to something else than it did, also if it cannot be looked at for a while. */
const untilOther = (
  resolver: SecretResolver["Service"],
  text: string,
  used: Redacted.Redacted,
  retryMillis: number
): Effect.Effect<void> =>
  resolver.changes(text).pipe(
    Stream.filter((value) => !Equal.equals(value, used)),
    Stream.take(1),
    Stream.runDrain,
    Effect.catchCause((cause) => {
      const error = Cause.findErrorOption(cause)
      // What a defect says may hold what it was given.
      const why = Option.isSome(error) ? error.value.message : "unexpectedly"
      return Effect.logWarning(`effect-toolops: a secret could not be looked at again: ${why}`).pipe(
        Effect.andThen(Effect.sleep(retryMillis)),
        Effect.andThen(Effect.suspend(() => untilOther(resolver, text, used, retryMillis)))
      )
    })
  )

/** Ends when one of the texts comes to something else than it did. One that cannot be looked at does not hide the others. */
const untilChanged = (resolver: SecretResolver["Service"], uses: Uses, retryMillis: number): Effect.Effect<void> =>
  Effect.raceAllFirst([...uses].map(([text, used]) => untilOther(resolver, text, used, retryMillis)))

const now = Effect.withFiber((fiber) => Effect.succeed(monotonicMillis(fiber)))

/** Builds the layer anew whenever a secret that it uses has changed. What cannot be built leaves the build before. */
export const keepFresh = <I, E, R>(options: {
  readonly builds: Builds<I>
  readonly first: Build<I>
  readonly layer: Layer.Layer<I, E, R>
  readonly resolver: SecretResolver["Service"]
  readonly scope: Scope.Scope
  readonly retryMillis: number
  readonly onFailure: (cause: Cause.Cause<E>) => Effect.Effect<void>
}): Effect.Effect<void, never, R> => {
  const { builds, retryMillis } = options
  const tell = (cause: Cause.Cause<E>): Effect.Effect<void> =>
    Effect.catchCause(
      Effect.suspend(() => options.onFailure(cause)),
      () => Effect.logWarning("effect-toolops: the handler of failed builds of a layer did not end well")
    )
  return Effect.gen(function*() {
    let build = options.first
    let lastEnd = -Infinity
    // What uses no secret never has to be built again.
    while (build.uses.size > 0) {
      yield* untilChanged(options.resolver, build.uses, retryMillis)
      // A source may bring another value at every look.
      const wait = lastEnd + retryMillis - (yield* now)
      if (wait > 0) yield* Effect.sleep(wait)
      // Also when it was interrupted from inside. When this fiber is interrupted, nothing is caught.
      const next = yield* Effect.catchCause(
        builds.build(options.layer, options.scope),
        (cause) => Effect.as(tell(cause), undefined)
      )
      lastEnd = yield* now
      // The value may be as it was by then.
      if (next === undefined) yield* Effect.sleep(retryMillis)
      else build = next
    }
  })
}
