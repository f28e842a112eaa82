import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { CheckAnswer } from "../health/HealthCheck.ts"
import type { HealthRegistry } from "../health/HealthRegistry.ts"

// By its name: nobody who has no registry loads one.
const Registry: Context.Service<HealthRegistry, HealthRegistry["Service"]> = Context.Service(
  "effect-toolops/health/HealthRegistry"
)

/** Parts of one kind that are told apart. Those beyond go without a check. */
const maxOfKind = 100

/**
 * Registers the check of a part of this library as `toolops.<kind>`, the second of its kind as `toolops.<kind>-2`, where
 * there is a registry. None of our parts is critical: the library does without each in a way that is documented, and a
 * program that cannot says so with a check of its own.
 */
export const selfCheck = (
  kind: string,
  check: Effect.Effect<CheckAnswer | boolean | void, unknown>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(Effect.serviceOption(Registry), (registry) => {
    if (registry._tag === "None") return Effect.void
    const attempt = (nth: number): Effect.Effect<void, never, Scope.Scope> =>
      Effect.catch(
        registry.value.register({
          name: nth === 1 ? `toolops.${kind}` : `toolops.${kind}-${nth}`,
          check,
          critical: false,
          groups: ["readiness"],
          timeoutMillis: 1000,
          intervalMillis: 5000,
          background: false,
          failAfter: 1,
          passAfter: 1
        }),
        () => nth < maxOfKind ? attempt(nth + 1) : Effect.void
      )
    return attempt(1)
  })
