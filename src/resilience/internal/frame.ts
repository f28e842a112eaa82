/**
 * What surrounds a running effect: the deadline it has, whether it is a repetition, which budget its repetitions come
 * out of, and what an attempt left running.
 *
 * Frames are links in the chain of slots that fibers inherit (see `Slot`), so a tool that is called from inside
 * another tool finds the frames of its caller. Nothing is copied from one to the next: whoever wants to know walks up,
 * and only failures, waits and curious handlers want to.
 *
 * @since 0.1.0
 */
import type * as Fiber from "effect/Fiber"
import type { RetryBudgetImpl } from "../RetryBudget.ts"
import type { Slot } from "./slot.ts"

/** @internal */
export class Frame implements Slot {
  readonly parent: Slot | undefined
  /** Set when the effect has ended. A fiber that was detached from it carries the frame on, and must not obey it. */
  isOver = false
  /** On the monotonic clock, in milliseconds. */
  deadline: number | undefined = undefined
  budget: RetryBudgetImpl | undefined = undefined
  /** True in a second or later attempt, and in a hedge: what runs here is not repeated once more. */
  isRepetition = false
  /** How many fibers outlive the answer that was given for them. */
  lingering = 0

  constructor(parent: Slot | undefined) {
    this.parent = parent
  }

  hold(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.lingering += 1
    fiber.addObserver(() => {
      this.lingering -= 1
    })
  }

  /** Told while what runs here is being stopped: something in it cannot be. */
  cannotStop(): void {}
}

/** @internal Tells everything around the slot that work in it was to be stopped and cannot be. */
export const unstoppable = (innermost: Slot | undefined): void => {
  for (let slot = innermost; slot !== undefined; slot = slot.parent) {
    if (slot instanceof Frame) slot.cannotStop()
  }
}

/**
 * Says whether an interruption would reach the fiber now.
 *
 * Not part of `Fiber`'s published type. Where a later version lacks it, work that does not stop at once is not waited for,
 * so nobody waits for ever.
 *
 * @internal
 */
export const isInterruptible = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  (fiber as { readonly interruptible?: boolean }).interruptible === true

/** @internal Says whether the slot is inside a repetition. */
export const isRepetition = (innermost: Slot | undefined): boolean => {
  for (let slot = innermost; slot !== undefined; slot = slot.parent) {
    if (slot instanceof Frame && slot.isRepetition && !slot.isOver) return true
  }
  return false
}

/** @internal Says whether a part around the slot has counted this call for `budget` already. */
export const isCounted = (innermost: Slot | undefined, budget: RetryBudgetImpl): boolean => {
  for (let slot = innermost; slot !== undefined; slot = slot.parent) {
    if (slot instanceof Frame && slot.budget === budget && !slot.isOver) return true
  }
  return false
}

/** @internal The budget of the outermost frame that has one: it pays for every repetition below. */
export const outermostBudget = (innermost: Slot | undefined): RetryBudgetImpl | undefined => {
  let budget: RetryBudgetImpl | undefined = undefined
  for (let slot = innermost; slot !== undefined; slot = slot.parent) {
    if (slot instanceof Frame && slot.budget !== undefined && !slot.isOver) budget = slot.budget
  }
  return budget
}

/** @internal When what runs in the slot must be done, on the monotonic clock. `Infinity` when nobody says. */
export const deadlineOf = (innermost: Slot | undefined): number => {
  let deadline = Infinity
  for (let slot = innermost; slot !== undefined; slot = slot.parent) {
    if (slot instanceof Frame && slot.deadline !== undefined && slot.deadline < deadline && !slot.isOver) {
      deadline = slot.deadline
    }
  }
  return deadline
}
