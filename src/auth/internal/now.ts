import type * as Fiber from "effect/Fiber"
import type { RequestHeadersInput } from "../../ToolCall.ts"
import type { Service } from "../Authenticator.ts"
import type { Answer } from "./findCaller.ts"

/**
 * The answer of `authenticate` where it is there already: most are, and a fiber costs more than they do.
 *
 * - `of`: the `authenticate` that it stands for. Of a service that was copied with another one, it says nothing.
 */
export interface Now {
  readonly of: Service["authenticate"]
  readonly answer: (headers: RequestHeadersInput, fiber: Fiber.Fiber<unknown, unknown>) => Answer | undefined
}

export const nowOf = (service: Service): Now["answer"] | undefined => {
  const now = service["~now"]
  return now !== undefined && now.of === service.authenticate ? now.answer : undefined
}
