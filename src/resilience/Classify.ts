/**
 * Ready-made answers to the question which results speak against a dependency.
 *
 * A breaker asks one of these after every call. It never asks about a call that was only interrupted, or whose caller
 * was: a caller that goes away says nothing of the dependency.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"

/**
 * What a breaker makes of a call. `ignored` is neither: the call leaves no trace.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = "success" | "failure" | "ignored"

/** @internal */
export const outcomes: ReadonlyArray<Outcome> = ["success", "failure", "ignored"]

/**
 * A rule that a breaker may be given.
 *
 * @category models
 * @since 0.1.0
 */
export type Classify = (exit: Exit.Exit<unknown, unknown>) => Outcome

/**
 * Every error and every defect is a failure. The default.
 *
 * @category rules
 * @since 0.1.0
 */
export const all: Classify = (exit) => exit._tag === "Success" ? "success" : "failure"

/**
 * Looks at HTTP statuses: 5xx, 408 and 429 are failures; any other status says that the server is well, even where the
 * client is not. What has no status is judged as by `all`.
 *
 * **Details**
 *
 * The status is read from `status`, `statusCode`, `response.status` or `response.statusCode`, of the error, of its
 * `reason` or of its `cause`, or of the value where the call has succeeded with a response.
 *
 * @category rules
 * @since 0.1.0
 */
export const http: Classify = (exit) => {
  const error = exit._tag === "Success" ? exit.value : failed(exit.cause)
  const status = statusOf(error) ?? statusOf(member(error, "reason")) ?? statusOf(member(error, "cause"))
  if (status === undefined) return all(exit)
  return status >= 500 || status === 408 || status === 429 ? "failure" : "success"
}

/**
 * Asks the error: one whose `retryable` (or `isRetryable`) field, or whose reason's, is false is ignored, since trying
 * again would not help and so the dependency is not to blame. Everything else is judged as by `all`.
 *
 * @category rules
 * @since 0.1.0
 */
export const retryable: Classify = (exit) => {
  if (exit._tag === "Success") return "success"
  const error = failed(exit.cause)
  return isWorthAnother(error) ? "failure" : "ignored"
}

/** @internal Says whether to try again after `error`, as far as the error itself knows. */
export const isWorthAnother = (error: unknown): boolean =>
  (isRetryable(error) ?? isRetryable(member(error, "reason"))) !== false

/** @internal Says whether a call ended only because it was interrupted. */
export const isInterruption = (exit: Exit.Exit<unknown, unknown>): boolean =>
  exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause)

/**
 * @internal Says whether a call ended only because it was interrupted, or because the fiber that made it was, whatever
 * came of cleaning up. What interrupts itself, or a fiber of its own, and fails besides, has failed.
 */
export const isCancelled = (fiber: Fiber.Fiber<unknown, unknown>, exit: Exit.Exit<unknown, unknown>): boolean => {
  if (exit._tag === "Success") return false
  if (Cause.hasInterruptsOnly(exit.cause)) return true
  // Not part of `Fiber`'s published type. Where a later version lacks it, what goes wrong in cleaning up is a failure.
  const interruption = (fiber as { readonly _interruptedCause?: Cause.Cause<never> })._interruptedCause
  if (interruption === undefined) return false
  const interruptors = interruption.reasons.map(interruptorOf)
  return exit.cause.reasons.some((reason) =>
    Cause.isInterruptReason(reason) && interruptors.includes(interruptorOf(reason))
  )
}

const interruptorOf = (reason: Cause.Reason<unknown>): number | undefined =>
  Cause.isInterruptReason(reason) ? reason.fiberId : undefined

const failed = (cause: Cause.Cause<unknown>): unknown => cause.reasons.find(Cause.isFailReason)?.error

const member = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && name in value ? Reflect.get(value, name) : undefined

const statusOf = (value: unknown): number | undefined =>
  status(member(value, "status")) ?? status(member(value, "statusCode")) ??
    status(member(member(value, "response"), "status")) ?? status(member(member(value, "response"), "statusCode"))

const status = (value: unknown): number | undefined =>
  typeof value === "number" && value >= 100 && value <= 599 ? value : undefined

const isRetryable = (value: unknown): boolean | undefined => {
  const flag = member(value, "retryable") ?? member(value, "isRetryable")
  return typeof flag === "boolean" ? flag : undefined
}
