import { equalText } from "../../internal/hash.ts"

// Finds what is kept of a key by the digest of the key, of which it looks at 32 bits to find the place and compares the
// whole in constant time. Cheaper than a `Map` from digests, which hashes each digest once more to find its place.

/** What has a digest: 32 bytes, as characters from U+0000 to U+00FF. */
export interface Digested {
  readonly digest: string
}

/** An index of what has a digest. */
export interface KeyIndex<A extends Digested> {
  readonly find: (digest: string) => A | undefined
  readonly add: (entry: A) => void
  readonly remove: (digest: string) => void
}

// Digests are spread evenly, so any four of their bytes tell nearly all keys apart.
const placeOf = (digest: string): number =>
  digest.charCodeAt(0) | digest.charCodeAt(1) << 8 | digest.charCodeAt(2) << 16 | digest.charCodeAt(3) << 24

/** Makes an index. */
export const makeKeyIndex = <A extends Digested>(): KeyIndex<A> => {
  const places = new Map<number, ReadonlyArray<A>>()
  return {
    find: (digest) => {
      const entries = places.get(placeOf(digest))
      if (entries === undefined) return undefined
      for (let i = 0; i < entries.length; i++) if (equalText(entries[i]!.digest, digest)) return entries[i]
      return undefined
    },
    add: (entry) => {
      const place = placeOf(entry.digest)
      places.set(place, [...places.get(place) ?? [], entry])
    },
    remove: (digest) => {
      const place = placeOf(digest)
      const left = (places.get(place) ?? []).filter((entry) => !equalText(entry.digest, digest))
      if (left.length === 0) places.delete(place)
      else places.set(place, left)
    }
  }
}

/** The digest that hexadecimal digits stand for. */
export const digestOfHex = (hex: string): string => hex.replace(/../g, (two) => String.fromCharCode(parseInt(two, 16)))
