import { hostClock } from "../../internal/monotonic.ts"
import type { Entry } from "../CacheStore.ts"

const utf8 = new TextDecoder()

/** A reply's text. Some clients hand out bytes. */
export const textOf = (reply: unknown): string | undefined =>
  typeof reply === "string" ? reply : reply instanceof Uint8Array ? utf8.decode(reply) : undefined

export interface ServerTime {
  readonly millis: number
  /** The same in whole microseconds. */
  readonly mark: string
}

/** Clocks that nobody sets may be hours apart. Beyond that, the reply is another command's. */
const maxApartMillis = 24 * 60 * 60 * 1000

/** What `TIME` says, if it makes sense. Redis goes by real time, also where fibers are given another clock. */
export const timeOf = (reply: unknown): ServerTime | undefined => {
  if (!Array.isArray(reply) || reply.length !== 2) return undefined
  const [seconds, micros]: ReadonlyArray<unknown> = reply
  if (typeof seconds !== "string" || typeof micros !== "string") return undefined
  if (!/^\d{1,12}$/.test(seconds) || !/^\d{1,6}$/.test(micros)) return undefined
  const millis = Number(seconds) * 1000 + Number(micros) / 1000
  if (Math.abs(millis - hostClock.currentTimeMillisUnsafe()) > maxApartMillis) return undefined
  return { millis, mark: `${seconds}${micros.padStart(6, "0")}` }
}

const envelope = /^1 (\d+) (\d+) /

// No key is empty, so this is taken for what it is: not the entry that was asked for.
const foreign: Entry = { key: "", text: "", freshUntil: 0, keepUntil: 0 }

/** The entry in a reply to `GET`; `offset` is what to add to the server's milliseconds to have our monotonic ones. */
export const entryOf = (reply: unknown, offset: number): Entry => {
  if (typeof reply !== "string") return foreign
  const end = reply.indexOf("\n")
  const head = envelope.exec(reply)
  if (head === null || end === -1) return foreign
  const [key, ...labels] = reply.slice(head[0].length, end).split("\t")
  return {
    key: key!,
    labels,
    text: reply.slice(end + 1),
    freshUntil: Number(head[1]) + offset,
    keepUntil: Number(head[2]) + offset
  }
}
