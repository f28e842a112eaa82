import * as Redacted from "effect/Redacted"
import { ed25519Prover, hmacProver, type Prover, randomBytes } from "../../internal/hash.ts"

// A line of the audit file: the JSON object of a record, with three members around its own.
//
//   {"seq":7,"prev":"<mac of line 6>",...the record's members...,"mac":"<proof>"}
//
// The first line has the log's id for its `prev`: a random number that tells logs apart which share a key.
//
// The proof is over a word that tells log and checkpoints apart and every byte of the line before `,"mac":`; the bytes
// after it have one possible form only. So there is no byte of a line that can be changed, and nothing has to be put in
// canonical form to check it.

/** How proofs are made. */
export type Algorithm = "hmac-sha256" | "ed25519"

/** Where a chain has got to. */
export interface Head {
  /** The number of the last line, 0 when there is none. */
  readonly seq: number
  readonly mac: string
}

/** The longest payload that is taken, in UTF-8 bytes. */
export const maxPayloadBytes = 256 * 1024

/** The longest line that is read. */
export const maxLineBytes = maxPayloadBytes + 1024

const newline = 10

/** One kind of chain: its lines are proved by one key for one purpose. */
export interface Chain {
  /** What the first line of the log with this id follows. */
  readonly genesis: (id: string) => Head
  /** The lines after `head` with their ends, and the head that they make. Each payload is a JSON object with members. */
  readonly lines: (head: Head, payloads: ReadonlyArray<string>) => { readonly bytes: Uint8Array; readonly head: Head }
  /** What a line without its end says, or `undefined` when it has not the form of one. */
  readonly parse: (line: Uint8Array) => Parsed | undefined
  /** Whether the line that was parsed was made with the key. */
  readonly isGenuine: (line: Uint8Array, parsed: Parsed) => boolean
}

export interface Parsed {
  readonly seq: number
  readonly prev: string
  readonly mac: string
}

const proverOf = (algorithm: Algorithm, key: Redacted.Redacted): Prover =>
  algorithm === "hmac-sha256"
    ? hmacProver(new TextEncoder().encode(Redacted.value(key)))
    : ed25519Prover(Redacted.value(key))

/** `purpose` tells chains apart that share a key, so that a line of one is no line of another. */
export const make = (algorithm: Algorithm, key: Redacted.Redacted, purpose: "log" | "checkpoints"): Chain => {
  const { check, digits, prove } = proverOf(algorithm, key)
  const encoder = new TextEncoder()
  const decoder = new TextDecoder("latin1")
  const domain = encoder.encode(`effect-toolops audit ${purpose} 1\n`)
  const head = new RegExp(`^\\{"seq":([1-9][0-9]{0,15}),"prev":"([0-9a-f]{${digits}})",`)
  const tail = new RegExp(`^,"mac":"([0-9a-f]{${digits}})"\\}$`)
  const maxHead = `{"seq":,"prev":"",`.length + 16 + digits
  const tailBytes = `,"mac":""}`.length + digits
  const newlineBytes = 1
  const maxAround = maxHead + tailBytes + newlineBytes
  let message = new Uint8Array(4096)
  message.set(domain)
  const room = (bytes: number): void => {
    if (domain.length + bytes <= message.length) return
    message = new Uint8Array((domain.length + bytes) * 2)
    message.set(domain)
  }
  return {
    genesis: (id) => ({ seq: 0, mac: id.padEnd(digits, "0") }),
    lines: (head, payloads) => {
      let bytes = new Uint8Array(payloads.reduce((sum, payload) => sum + payload.length, payloads.length * maxAround))
      let length = 0
      let { mac, seq } = head
      for (const payload of payloads) {
        seq += 1
        const body = `{"seq":${seq},"prev":"${mac}",${payload.slice(1, -1)}`
        room(body.length * 3)
        const end = domain.length + encoder.encodeInto(body, message.subarray(domain.length)).written
        mac = prove(message.subarray(0, end))
        const needed = length + end - domain.length + tailBytes + newlineBytes
        if (needed > bytes.length) {
          const more = new Uint8Array(needed * 2)
          more.set(bytes.subarray(0, length))
          bytes = more
        }
        bytes.set(message.subarray(domain.length, end), length)
        length += end - domain.length
        length += encoder.encodeInto(`,"mac":"${mac}"}\n`, bytes.subarray(length)).written
      }
      return { bytes: bytes.subarray(0, length), head: { seq, mac } }
    },
    parse: (line) => {
      if (line.length < tailBytes) return undefined
      const found = head.exec(decoder.decode(line.subarray(0, maxHead)))
      if (found === null) return undefined
      const end = tail.exec(decoder.decode(line.subarray(line.length - tailBytes)))
      if (end === null || found[0].length > line.length - tailBytes) return undefined
      const seq = Number(found[1])
      return Number.isSafeInteger(seq) ? { seq, prev: found[2]!, mac: end[1]! } : undefined
    },
    isGenuine: (line, parsed) => {
      const body = line.length - tailBytes
      room(body)
      message.set(line.subarray(0, body), domain.length)
      return check(message.subarray(0, domain.length + body), parsed.mac)
    }
  }
}

const idDigits = 32

/** The id of a log that is to be. */
export const makeId = (): string =>
  Array.from(randomBytes(idDigits / 2), (byte) => byte.toString(16).padStart(2, "0")).join("")

/** The id of the log whose first line follows `prev`. */
export const idOf = (prev: string): string => prev.slice(0, idDigits)

/** Whether it is an id, as far as one can tell. */
export const isId = (text: unknown): text is string => typeof text === "string" && /^[0-9a-f]{32}$/.test(text)

const maxPairs = 10_000

/**
 * Whether there is, anywhere in the bytes, a line that was made with the key. A line does not tell by its form alone where it
 * ends; bytes with more possible lines than any log has count as holding one.
 */
export const holdsGenuine = (chain: Chain, bytes: Uint8Array): boolean => {
  const text = new TextDecoder("latin1").decode(bytes)
  const starts = Array.from(
    text.matchAll(/\{"seq":[1-9][0-9]{0,15},"prev":"[0-9a-f]{64,128}",/g),
    (match) => match.index
  )
  const ends = Array.from(text.matchAll(/,"mac":"[0-9a-f]{64,128}"\}/g), (match) => match.index + match[0].length)
  if (starts.length * ends.length > maxPairs) return true
  return starts.some((start) =>
    ends.some((end) => {
      const line = bytes.subarray(start, Math.max(start, end))
      const parsed = chain.parse(line)
      return parsed !== undefined && chain.isGenuine(line, parsed)
    })
  )
}

/** What may be followed: without `mac` when it is not known. */
export type Start = Omit<Head, "mac"> & { readonly mac: string | undefined }

/** Whether a line is the one after another. */
export const isNext = (start: Start, parsed: Parsed): boolean =>
  parsed.seq === start.seq + 1 && (start.mac === undefined || parsed.prev === start.mac)

/**
 * Whether bytes at the end of a file may be what a crash has left of the line after `head`: its beginning, and zeros where
 * the file system has not written what was to come.
 */
export const mayBeTorn = ({ mac, seq }: Start, bytes: Uint8Array): boolean => {
  const zero = bytes.indexOf(0)
  const written = zero === -1 ? bytes : bytes.subarray(0, zero)
  const prefix = `{"seq":${seq + 1},"prev":"`
  const prev = mac ?? /^[0-9a-f]*/.exec(new TextDecoder("latin1").decode(written.subarray(prefix.length)))?.[0] ?? ""
  const isCutInPrev = written.length <= prefix.length + prev.length
  const start = new TextEncoder().encode(isCutInPrev ? prefix + prev : `${prefix}${prev}",`)
  return written.subarray(0, start.length).every((byte, i) => byte === start[i]) &&
    (zero === -1 || isZero(bytes.subarray(zero)))
}

export const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

/** Splits what was read into lines. Holds no more than one line, however long it is. */
export class LineSplitter {
  readonly #onLine: (line: Uint8Array, isWhole: boolean) => void
  #kept = new Uint8Array(4096)
  #length = 0
  #isOverlong = false
  #isDropZero = true

  /** `isWhole` is false for the first bytes of a line that is too long to be one of ours. */
  constructor(onLine: (line: Uint8Array, isWhole: boolean) => void) {
    this.#onLine = onLine
  }

  /** The bytes after the last line end; only the first ones if they are too many. */
  get rest(): Uint8Array {
    return this.#kept.subarray(0, this.#length)
  }

  /** Whether all bytes that were too many for `rest` are zeros. True when there are none. */
  get isDropZero(): boolean {
    return this.#isDropZero
  }

  /** The lines that it hands out are views of `bytes`, good until it returns. */
  push(bytes: Uint8Array): void {
    let start = 0
    for (;;) {
      const end = bytes.indexOf(newline, start)
      if (end === -1) break
      const line = bytes.subarray(start, end)
      if (this.#length > 0 || this.#isOverlong) {
        this.#keep(line)
        const whole = this.rest
        const isWhole = !this.#isOverlong
        this.#length = 0
        this.#isOverlong = false
        this.#isDropZero = true
        this.#onLine(whole, isWhole)
      } else this.#onLine(line.subarray(0, maxLineBytes), line.length <= maxLineBytes)
      start = end + 1
    }
    this.#keep(bytes.subarray(start))
  }

  #keep(bytes: Uint8Array): void {
    const room = maxLineBytes - this.#length
    if (bytes.length > room) {
      this.#isOverlong = true
      this.#isDropZero &&= isZero(bytes.subarray(room))
    }
    const length = this.#length + Math.min(room, bytes.length)
    if (length > this.#kept.length) {
      const kept = new Uint8Array(Math.min(length * 2, maxLineBytes))
      kept.set(this.rest)
      this.#kept = kept
    }
    this.#kept.set(bytes.subarray(0, room), this.#length)
    this.#length = length
  }
}
