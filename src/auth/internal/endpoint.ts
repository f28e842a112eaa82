import { checkUrl } from "../../internal/boundedFetch.ts"

/** Checks the URL of a server that is asked. A fragment is never sent, so whoever writes one means something else. */
export const checkEndpoint = (where: string, url: string, allowInsecureHttp: boolean): URL => {
  const checked = checkUrl(where, url, allowInsecureHttp)
  if (checked.href.includes("#")) throw new TypeError(`${where}: url must have no fragment`)
  return checked
}
