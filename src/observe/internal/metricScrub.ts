import { sha256Hex } from "../../internal/hash.ts"
import type { Redaction } from "../Redaction.ts"
import { replacement } from "../Redaction.ts"

// What metrics say of themselves leaves the program by more than one way, and by each without what looks like a secret.

// Names of tools are the program's own, and tell series apart: a tool `secrets:list` is not a secret with the value
// `list`.
const ours = new Set(["tool.id", "tool.name", "tool.namespace", "tool.version", "gen_ai.tool.name"])
// Ours hold names too, but others may have labels that are called so.
const names = new Set(["dependency", "limit"])
// OpenTelemetry's own, for `input` and `output`.
const harmless = new Set(["gen_ai.token.type"])

/** Anything as text, whatever it does when it is asked for it. */
export const textOf = (value: unknown): string => {
  try {
    return String(value)
  } catch {
    return "[unreadable]"
  }
}

/** Whether all parts of a name with colons are words by which no secret is recognised. */
const isPlainName = (text: string, redaction: Redaction): boolean =>
  /^[\w./-]+(?::[\w./-]+)*$/.test(text) && text.split(":").every((part) => redaction.text(part) === part)

const scrubValue = (name: string, text: string, redaction: Redaction, words: string | undefined): string => {
  if (ours.has(name)) return text
  if (name !== words && !harmless.has(name) && redaction.isSensitiveKey(name)) return replacement
  return names.has(name) && isPlainName(text, redaction) ? text : redaction.text(text)
}

// Two bytes of the hash: enough for the few that meet, and too little to tell a secret by.
const marked = (scrubbed: string, text: string): string => {
  if (scrubbed === text && !scrubbed.includes(replacement)) return scrubbed
  const mark = sha256Hex(text).slice(0, 4)
  const labelled = `${replacement.slice(0, -1)}:${mark}>`
  return scrubbed.includes(replacement) ? scrubbed.replaceAll(replacement, labelled) : `${scrubbed} <${mark}>`
}

/** A label of one series, as it is told. */
export type Label = readonly [name: string, value: string]

type Attributes = Readonly<Record<string, unknown>>

const labelsOf = (
  attributes: Attributes,
  redaction: Redaction,
  words: string | undefined,
  isMarked: boolean
): { readonly labels: ReadonlyArray<Label>; readonly isRedacted: boolean } => {
  const labels: Array<Label> = []
  let isRedacted = false
  for (const own of Object.keys(attributes).toSorted()) {
    // The unit is told elsewhere.
    if (own === "unit" || own === "time_unit") continue
    const text = textOf(attributes[own])
    let name = redaction.text(own)
    let value = scrubValue(own, text, redaction, words)
    isRedacted ||= name !== own || value !== text || value.includes(replacement)
    if (isMarked) {
      name = marked(name, own)
      value = marked(value, text)
    }
    labels.push([name, value])
  }
  return { labels, isRedacted }
}

/**
 * The labels of all series of one metric, in the order of their own names. Series that only what is redacted tells apart
 * get a bit of its hash, which does not depend on which of them came first: told alike, one would be taken for the other.
 *
 * `words` is the label that holds the words of a frequency, under Effect's name `key`: anywhere else a sensitive one.
 */
export const scrubLabels = (
  series: ReadonlyArray<Attributes>,
  redaction: Redaction,
  words?: string
): ReadonlyArray<ReadonlyArray<Label>> => {
  const out: Array<ReadonlyArray<Label>> = []
  const alike = new Map<string, number>()
  for (const [i, attributes] of series.entries()) {
    const { isRedacted, labels } = labelsOf(attributes, redaction, words, false)
    out.push(labels)
    if (!isRedacted) continue
    const told = JSON.stringify(labels)
    const first = alike.get(told)
    if (first === undefined) {
      alike.set(told, i)
      continue
    }
    out[first] = labelsOf(series[first]!, redaction, words, true).labels
    out[i] = labelsOf(attributes, redaction, words, true).labels
  }
  return out
}
