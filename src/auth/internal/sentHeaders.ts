import type { Headers } from "effect/http/Headers"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import type { RequestHeadersInput } from "../../ToolCall.ts"

/**
 * The headers of a request as they were sent. Node keeps the first of two `Authorization` headers and drops the other; its
 * raw list has both, and then they are given as a list here, which no authenticator takes for a credential.
 */
export const sentHeaders = (request: HttpServerRequest, headers: Headers = request.headers): RequestHeadersInput => {
  const raw: unknown = "rawHeaders" in request.source ? request.source.rawHeaders : undefined
  if (!Array.isArray(raw)) return headers
  const sent: Array<string> = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (String(raw[i]).toLowerCase() === "authorization") sent.push(String(raw[i + 1]))
  }
  return sent.length > 1 ? { ...headers, authorization: sent } : headers
}
