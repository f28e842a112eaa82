import type * as McpServer from "effect/ai/McpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"

/**
 * How far a call has come.
 *
 * - `progress`: grows with every report of a call; one that does not is left out.
 * - `total`: what `progress` will be in the end, if that is known.
 * - `message`: for people.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  readonly progress: number
  readonly total?: number | undefined
  readonly message?: string | undefined
}

type Reporter = (progress: Progress) => Effect.Effect<void>

export const ProgressReporter: Context.Reference<Reporter | undefined> = Context.Reference<Reporter | undefined>(
  "effect-toolops/ai/McpOps/ProgressReporter",
  { defaultValue: () => undefined }
)

/**
 * Tells the client how far the call has come that the handler is running for. Does nothing where the client has not asked
 * (`progressToken` in `_meta`), where the call did not come through `headers`, or where it has been answered already from
 * the cache and this run is to renew the answer.
 *
 * **Gotchas**
 *
 * Where several callers wait for one execution, only the one whose call runs is told. The message is shown to the caller,
 * so it is no place for secrets.
 *
 * **Example** (Reporting progress)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { McpOps } from "effect-toolops/ai"
 *
 * const copy = (files: ReadonlyArray<string>) =>
 *   Effect.gen(function*() {
 *     for (const index of files.keys()) {
 *       yield* McpOps.progress({ progress: index + 1, total: files.length })
 *     }
 *     return files.length
 *   })
 *
 * // By hand there is nobody to tell.
 * await Effect.runPromise(copy(["a", "b"])) // => 2
 * ```
 *
 * @category handlers
 * @since 0.1.0
 */
export const progress = (progress: Progress): Effect.Effect<void> =>
  Effect.withFiber((fiber) => fiber.getRef(ProgressReporter)?.(progress) ?? Effect.void)

interface Reports {
  readonly report: Reporter
  /** Lets no more reports out. */
  readonly close: Effect.Effect<void>
  /** Waits for those that are on their way. */
  readonly sent: Effect.Effect<void>
}

/** What reports to the client of a request until that is answered, if the client has asked for reports. */
export const reporterOf = (
  server: McpServer.McpServer["Service"],
  metadata: object | undefined
): Reports | undefined => {
  if (metadata === undefined || !("progressToken" in metadata)) return undefined
  const { progressToken } = metadata
  if (typeof progressToken !== "string" && typeof progressToken !== "number") return undefined
  let last = -Infinity
  let isOpen = true
  let sending = 0
  const idle = Latch.makeUnsafe(true)
  const sent = Effect.sync(() => {
    sending -= 1
    if (sending === 0) idle.openUnsafe()
  })
  const report: Reporter = ({ message, progress, total }) =>
    Effect.suspend(() => {
      if (!isOpen || !(progress > last) || !Number.isFinite(progress)) return Effect.void
      last = progress
      sending += 1
      idle.closeUnsafe()
      // A report that does not arrive is no reason for a call to fail.
      return Effect.ensuring(
        Effect.ignore(server.notifications["notifications/progress"]({
          progressToken,
          progress,
          ...(total === undefined ? undefined : { total }),
          ...(message === undefined ? undefined : { message })
        })),
        sent
      )
    })
  return {
    report,
    close: Effect.sync(() => {
      isOpen = false
    }),
    sent: idle.await
  }
}
