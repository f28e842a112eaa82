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
 * What `make` takes. `input` may be left out only where the tool takes none: for the cache two calls without an input are
 * the same call.
 *
 * @category options
 * @since 0.1.0
 */
export type Options<V extends Varies = Varies, Input = any> =
  & CallOptions
  & { readonly tool: ToolMeta<Input, V> }
  & ([undefined] extends [Input] ? { readonly input?: Input | undefined } : { readonly input: Input })

// Names of calls only have to differ. The prefix differs between processes and the counter within one, so no call pays
// for random bytes.
let prefix: string | undefined = undefined
let counter = 0
const nextCallId = (): string => {
  prefix ??= sha256Hex(globalThis.crypto.randomUUID()).slice(0, 16)
  counter += 1
  return `${prefix}-${counter.toString(36)}`
}

/**
 * @internal Whether a call's name is one that was made up here, which holds nothing of anybody's. A longer one that begins
 * like it is not.
 */
export const isMadeUp = (callId: string): boolean =>
  prefix !== undefined && callId.length <= prefix.length + 12 && callId.startsWith(prefix)

// What must not be printed is private: formatters read every property that an object owns, whatever `toJSON` says.
class ToolCallImpl<V extends Varies> implements ToolCall<V> {
  readonly tool: ToolMeta<any, V>
  readonly action: string
  readonly idempotencyKey: string | undefined
  readonly #input: unknown
  readonly #headers: RequestHeadersInput | undefined
  readonly #record: CallRecord = new CallRecord()
  #callId: string | undefined
  #origin: ToolCall | undefined = undefined

  /** Documented as `again`. */
  static again<V extends Varies>(call: ToolCall<V>): ToolCall<V> {
    const other = new ToolCallImpl(call.tool, call.input, {
      action: call.action,
      headers: call.headers,
      callId: call.callId,
      idempotencyKey: call.idempotencyKey
    })
    const { cacheKey, identity, limits, observation, rule } = call.record
    Object.assign(other.record, { cacheKey, identity, limits, observation, rule })
    other.#origin = call
    return other
  }

  /** Documented as `originOf`. */
  static originOf(call: ToolCall): ToolCall {
    return call instanceof ToolCallImpl ? call.#origin ?? call : call
  }

  constructor(tool: ToolMeta<any, V>, input: unknown, options: CallOptions | undefined) {
    this.tool = tool
    this.action = options?.action ?? "call"
    this.idempotencyKey = options?.idempotencyKey
    this.#input = input
    this.#headers = options?.headers
    this.#callId = options instanceof ToolCallImpl ? options.#callId : options?.callId
  }

  get input(): unknown {
    return this.#input
  }

  get headers(): RequestHeadersInput | undefined {
    return this.#headers
  }

  get record(): CallRecord {
    return this.#record
  }

  get callId(): string {
    return this.#callId ??= nextCallId()
  }

  toJSON(): unknown {
    return { _id: "effect-toolops/ToolCall", tool: this.tool.id, action: this.action, callId: this.callId }
  }

  toString(): string {
    return JSON.stringify(this.toJSON())
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
export const restart = <V extends Varies>(call: Options<V> | ToolCall<V>): ToolCall<V> =>
  new ToolCallImpl(call.tool, call.input, call)

/**
 * @internal The same call of the same caller, let in by the same rule, with a record for what becomes of it after the
 * first one has been answered. Made while that one is under way, so that its executions are observed like others.
 */
export const again: <V extends Varies>(call: ToolCall<V>) => ToolCall<V> = ToolCallImpl.again

/** @internal The call that a call made by `again` goes on with, or the call itself. */
export const originOf: (call: ToolCall) => ToolCall = ToolCallImpl.originOf

/** @internal The call without its caller: no headers, and a record that nobody has written to. */
export const withoutCaller = <V extends Varies>(call: ToolCall<V>): ToolCall<V> =>
  new ToolCallImpl(call.tool, call.input, {
    action: call.action,
    callId: call.callId,
    idempotencyKey: call.idempotencyKey
  })
