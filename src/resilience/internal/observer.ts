/**
 * Observers that cannot harm the call they hear of.
 *
 * They are called between a step and the one that undoes it, where whatever was thrown would leave a slot taken, work
 * running, or a caller without an answer.
 *
 * @since 0.1.0
 */
import type { ResilienceObserver } from "../ResilienceObserver.ts"

/** @internal What an observer does about `event`, without what it throws. */
export const harmless = <K extends keyof ResilienceObserver>(
  observer: ResilienceObserver | undefined,
  event: K
): ResilienceObserver[K] => {
  // An observer takes two values at most.
  const tell = observer?.[event] as ((first: unknown, second?: unknown) => void) | undefined
  if (tell === undefined) return undefined
  const told = (first: unknown, second?: unknown): void => {
    try {
      tell.call(observer, first, second)
    } catch {
      // There is nobody to give it to: the call has not failed, and its caller did not ask for the observer.
    }
  }
  return told as ResilienceObserver[K]
}
