/**
 * Stage 2 of 5. Finds out who calls and whether they may.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import type { AuthError } from "./AuthError.ts"
import { anonymous, CurrentIdentity } from "./Identity.ts"

/**
 * The auth stage.
 *
 * @category services
 * @since 0.1.0
 */
export class AuthMiddleware extends Context.Service<
  AuthMiddleware,
  ToolMiddleware.ToolMiddleware<AuthError, CurrentIdentity>
>()("effect-toolops/auth/AuthMiddleware") {}

/**
 * Leaves the stage out: nobody is asked who they are. The caller is whom the edge has authenticated, else anonymous.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<AuthMiddleware> = Layer.succeed(AuthMiddleware, {
  name: "auth",
  forTool: () => (call, next) =>
    Effect.withFiber((fiber) => {
      const known = Context.getOrUndefined(fiber.context as Context.Context<CurrentIdentity>, CurrentIdentity)
      call.record.identity = known ?? anonymous
      return known === undefined ? Effect.provideService(next, CurrentIdentity, anonymous) : next
    })
})
