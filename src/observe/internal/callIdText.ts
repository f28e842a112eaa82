import { cut } from "../../internal/cut.ts"
import { isMadeUp } from "../../ToolCall.ts"
import type { Redaction } from "../Redaction.ts"

const maxLength = 256
// More than is told, so that no secret is halved by the cut and loses the shape by which it is known.
const maxSearched = 4 * maxLength

/** The name of a call as it is told. It may be the caller's own, so it may hold anything. */
export const callIdText = (callId: string, redaction: Redaction): string =>
  isMadeUp(callId) ? callId : cut(redaction.text(cut(callId, maxSearched)), maxLength)
