/**
 * One call of one tool, as it travels through the stages.
 *
 * A call carries the caller's headers, so it prints and encodes without them and without its input.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import { CallRecord } from "./CallRecord.ts"
import { sha256Hex } from "./internal/hash.ts"
import type { ToolMeta, Varies } from "./ToolMeta.ts"

/**
 * Header names in any case to values. A list stands for a header that was sent several times.
 *
 * @category models
 * @since 0.1.0
 */
export type RequestHeadersInput = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/**
 * The headers of the request that is being answered, for calls that bring none of their own. HTTP and MCP edges set it.
 *
 * @category references
 * @since 0.1.0
 */
export const RequestHeaders: Context.Reference<RequestHeadersInput | undefined> = Context.Reference<
  RequestHeadersInput | undefined
>("effect-toolops/ToolCall/RequestHeaders", { defaultValue: () => undefined })

/**
 * A call on its way.
 *
 * - `action`: what the caller wants to do with the tool. Default `call`.
 * - `headers`: where the credential is. Without them the `RequestHeaders` reference is asked.
 * - `callId`: names this call in spans, logs and audit. Made up when none is given.
 * - `idempotencyKey`: the caller's promise that two calls with the same key are the same call.
 * - `record`: what the stages found out.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolCall<out V extends Varies = Varies> {
  readonly tool: ToolMeta<any, V>
  readonly input: unknown
  readonly action: string
  readonly headers: RequestHeadersInput | undefined
  readonly callId: string
  readonly idempotencyKey: string | undefined
  readonly record: CallRecord
}

/**
 * What can be said of a call beside its tool and input.
 *
 * @category options
 * @since 0.1.0
 */
export interface CallOptions {
  readonly action?: string | undefined
  readonly headers?: RequestHeadersInput | undefined
  readonly callId?: string | undefined
  readonly idempotencyKey?: string | undefined
}

/**
 * What `make` takes.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<out V extends Varies = Varies> extends CallOptions {
  readonly tool: ToolMeta<any, V>
  readonly input?: unknown
}

// Names of calls only have to differ. The prefix differs between processes and the counter within one, so no call pays
// for random bytes.
let prefix: string | undefined = undefined
let counter = 0
const nextCallId = (): string => {
  prefix ??= sha256Hex(globalThis.crypto.randomUUID()).slice(0, 16)
  counter += 1
  return `${prefix}-${counter.toString(36)}`
}

class ToolCallImpl<V extends Varies> implements ToolCall<V> {
  readonly tool: ToolMeta<any, V>
  readonly input: unknown
  action: string
  headers: RequestHeadersInput | undefined
  idempotencyKey: string | undefined
  readonly record: CallRecord = new CallRecord()
  givenCallId: string | undefined

  constructor(tool: ToolMeta<any, V>, input: unknown, options: CallOptions | undefined) {
    this.tool = tool
    this.input = input
    this.action = options?.action ?? "call"
    this.headers = options?.headers
    this.idempotencyKey = options?.idempotencyKey
    this.givenCallId = options?.callId
  }

  get callId(): string {
    return this.givenCallId ??= nextCallId()
  }

  toJSON(): unknown {
    return { _id: "effect-toolops/ToolCall", tool: this.tool.id, action: this.action, callId: this.callId }
  }

  [Symbol.for("nodejs.util.inspect.custom")](): unknown {
    return this.toJSON()
  }
}

/**
 * Makes a call.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <V extends Varies>(options: Options<V>): ToolCall<V> =>
  new ToolCallImpl(options.tool, options.input, options)

/** @internal A call with a record of its own: what one execution works on. */
export const start = <V extends Varies>(
  tool: ToolMeta<any, V>,
  input: unknown,
  options: CallOptions | undefined
): ToolCall<V> => new ToolCallImpl(tool, input, options)

/** @internal The same call with a new record. Keeps a name that was given or has been read. */
export const restart = <V extends Varies>(call: Options<V> | ToolCall<V>): ToolCall<V> => {
  const next = new ToolCallImpl(call.tool, call.input, call instanceof ToolCallImpl ? undefined : call)
  if (call instanceof ToolCallImpl) {
    next.action = call.action
    next.headers = call.headers
    next.idempotencyKey = call.idempotencyKey
    next.givenCallId = call.givenCallId
  }
  return next
}
