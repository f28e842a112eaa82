import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { createRequire } from "node:module"
import type { AddressInfo, Socket } from "node:net"

// The messages of the OpenTelemetry protocol, generated from its definitions: not the code that writes them here. What is
// generated has no types, so what is read from it has none either.
const definitions: any = createRequire(import.meta.url)("otlp-definitions/build/src/generated/root.js")
const trace = definitions.opentelemetry.proto.collector.trace.v1
const metrics = definitions.opentelemetry.proto.collector.metrics.v1

/** A span as it came, with what tests look at. */
export interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly kind: number
  readonly status: { readonly code?: number; readonly message?: string }
  readonly attributes: Record<string, unknown>
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: Record<string, unknown> }>
  readonly links: ReadonlyArray<{ readonly traceId: string }>
  readonly resource: Record<string, unknown>
}

export interface Point {
  readonly name: string
  readonly unit: string
  readonly kind: "sum" | "gauge" | "histogram"
  readonly value: number
  readonly bounds: ReadonlyArray<number>
  readonly attributes: Record<string, unknown>
  readonly isDelta: boolean
}

interface Request {
  readonly path: string
  readonly headers: IncomingMessage["headers"]
  readonly body: Buffer
  readonly at: number
}

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("hex")
const plain = (value: any): unknown => {
  if (value?.arrayValue) return value.arrayValue.values.map(plain)
  const found = value?.stringValue ?? value?.boolValue ?? value?.doubleValue ?? value?.intValue
  return typeof found === "object" && found !== null ? Number(found) : found
}
const record = (attributes: ReadonlyArray<any> | undefined): Record<string, unknown> =>
  Object.fromEntries((attributes ?? []).map(({ key, value }) => [key, plain(value)]))

const spansOf = ({ body }: Request): Array<Span> =>
  trace.ExportTraceServiceRequest.decode(body).resourceSpans.flatMap((resource: any) =>
    resource.scopeSpans.flatMap((scope: any) =>
      scope.spans.map((span: any): Span => ({
        name: span.name,
        traceId: hex(span.traceId),
        spanId: hex(span.spanId),
        parentSpanId: hex(span.parentSpanId),
        kind: span.kind,
        status: span.status ?? {},
        attributes: record(span.attributes),
        events: span.events.map((event: any) => ({ name: event.name, attributes: record(event.attributes) })),
        links: span.links.map((link: any) => ({ traceId: hex(link.traceId) })),
        resource: record(resource.resource?.attributes)
      }))
    )
  )

const pointsOf = ({ body }: Request): Array<Point> =>
  metrics.ExportMetricsServiceRequest.decode(body).resourceMetrics.flatMap((resource: any) =>
    resource.scopeMetrics.flatMap((scope: any) =>
      scope.metrics.flatMap((metric: any) => {
        const kind = metric.histogram ? "histogram" : metric.sum ? "sum" : "gauge"
        return metric[kind].dataPoints.map((point: any): Point => ({
          name: metric.name,
          unit: metric.unit,
          kind,
          value: Number(kind === "histogram" ? point.count : point.asDouble ?? point.asInt),
          bounds: point.explicitBounds ?? [],
          attributes: record(point.attributes),
          isDelta: metric[kind].aggregationTemporality === 1
        }))
      })
    )
  )

/** What a collector answers, and `true` when it has taken what came. */
export type Behaviour = (
  response: ServerResponse,
  request: { readonly path: string; readonly index: number }
) => boolean

export const accept: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "application/x-protobuf" }).end()
  return true
}

export const answer = (status: number, headers: Record<string, string> = {}): Behaviour => (response) => {
  response.writeHead(status, headers).end("no")
  return false
}

export const hang: Behaviour = () => false

export const reset: Behaviour = (response) => {
  response.socket?.resetAndDestroy()
  return false
}

export const rejectSome = (rejectedSpans: number): Behaviour => (response) => {
  response.writeHead(200).end(
    trace.ExportTraceServiceResponse.encode({ partialSuccess: { rejectedSpans, errorMessage: "no" } }).finish()
  )
  return true
}

/** A collector that keeps all that is sent to it, and behaves as it is told to. */
export const startCollector = async (behaviour: Behaviour = accept, port = 0) => {
  const requests: Array<Request> = []
  const taken: Array<Request> = []
  const sockets = new Set<Socket>()
  let inFlight = 0
  let mostInFlight = 0
  let behave = behaviour
  const server = createServer((request, response) => {
    inFlight++
    mostInFlight = Math.max(mostInFlight, inFlight)
    response.on("close", () => void inFlight--)
    const chunks: Array<Buffer> = []
    request.on("error", () => {})
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const one = {
        path: request.url ?? "",
        headers: request.headers,
        body: Buffer.concat(chunks),
        at: performance.now()
      }
      requests.push(one)
      if (behave(response, { path: one.path, index: requests.length - 1 })) taken.push(one)
    })
  })
  server.on("connection", (socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("close", () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    become: (next: Behaviour) => void (behave = next),
    mostInFlight: () => mostInFlight,
    /** What was taken, so not what came with a request that was refused. */
    spans: (): ReadonlyArray<Span> => taken.filter(({ path }) => path === "/v1/traces").flatMap(spansOf),
    points: (): ReadonlyArray<Point> => taken.filter(({ path }) => path === "/v1/metrics").flatMap(pointsOf),
    /** Everything that came, taken or not. */
    bytes: (): Buffer => Buffer.concat(requests.map(({ body }) => body)),
    close: () =>
      new Promise<void>((resolve) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resolve())
      })
  }
}

export type Collector = Awaited<ReturnType<typeof startCollector>>

/** Waits for something that happens in its own time; the machine may be slow, so the limit is only there to end. */
export const until = async (what: string, isSo: () => boolean, seconds = 20): Promise<void> => {
  const end = performance.now() + seconds * 1000
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`it took too long: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
