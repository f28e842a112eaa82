/**
 * How long a bulkhead's slot stays taken.
 *
 * A timeout answers at its deadline even when the work cannot be interrupted. Such work still uses what the bulkhead
 * protects, so it keeps its slot until it has really ended. The slot is found through the fiber's context, which
 * children inherit.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"

/** @internal A slot in use. */
export interface Slot {
  /** The slot of the bulkhead around this one, if there is one. */
  readonly parent: Slot | undefined
  /** Keeps the slot taken until `fiber` has ended as well. */
  readonly hold: (fiber: Fiber.Fiber<unknown, unknown>) => void
}

/** @internal The innermost slot that the running fiber holds. */
export const CurrentSlot: Context.Reference<Slot | undefined> = Context.Reference<Slot | undefined>(
  "effect-toolops/resilience/internal/slot/CurrentSlot",
  { defaultValue: () => undefined }
)

/** @internal Says that an answer is given although `fiber` still runs: `innermost` and every slot around it wait for it. */
export const lingering = (innermost: Slot | undefined, fiber: Fiber.Fiber<unknown, unknown>): void => {
  for (let slot = innermost; slot !== undefined; slot = slot.parent) slot.hold(fiber)
}
