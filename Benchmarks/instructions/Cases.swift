import FilterCatalog
import Pipeline
import PipelineFlows
import PipelineLanguage
import PipelineRouting
import PipelineSets
import PipelineWire
import TestSupport

/// Makes an operation, or nil if it can't. The operation gets its number, and answers with something that depends on its work.
struct Case: Sendable {
    let name: String
    let make: @Sendable () -> (@Sendable (Int) -> Int)?
}

/// What an operation answers if it came to the wrong end: counting that would say nothing.
let wrong = Int.min

let cases: [Case] = [
    Case(name: "loop") { { $0 } },
    Case(name: "hello 517") { parseHello(517) },
    Case(name: "hello 1800, two records") { parseHello(1800, records: [900]) },
    Case(name: "proxy v1") { parseProxy(Array("PROXY TCP6 2001:db8::99 2001:db8::1 40000 443\r\n".utf8)) },
    Case(name: "proxy v2") { parseProxy(proxyV2) },
    Case(name: "name from the wire") { wireName("app.example.com") },
    Case(name: "name from a config, plain") { configName("app.example.com") },
    Case(name: "name from a config, IDNA") { configName("bücher.example.com") },
    Case(name: "route of 1,000, hit") { lookUpRoute(1000, hit: true) },
    Case(name: "route of 1,000, miss") { lookUpRoute(1000, hit: false) },
    Case(name: "route of 100,000, hit") { lookUpRoute(100_000, hit: true) },
    Case(name: "route of 100,000, miss") { lookUpRoute(100_000, hit: false) },
    Case(name: "prefix of 1,000") { lookUpPrefix(1000) },
    Case(name: "prefix of 100,000") { lookUpPrefix(100_000) },
    Case(name: "chain: sni, backend, proxy_v2") { evaluateChain("") },
    Case(name: "chain: the same behind 16 address stages") {
        evaluateChain((0..<16).map { "address deny from 2001:db8:\($0):ff::/64\n" }.joined())
    },
    Case(name: "chain: every stage") {
        evaluateChain(
            "anti_spoof accept from 192.0.2.0/24, refuse others\naddress deny from 198.51.100.0/24\nrate_limit per_client\n",
            behind: "account\n")
    },
]

// MARK: Memory that lives as long as the process

func kept(_ bytes: [UInt8]) -> UnsafeBufferPointer<UInt8> {
    let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: bytes.count)
    _ = memory.initialize(from: bytes)
    return UnsafeBufferPointer(memory)
}

/// For closures that must be `Sendable`: there is one thread.
struct Kept<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}

let peer = Endpoint(IPAddress(high: 0x2600 << 48, low: 9), 40000)
let listening = Endpoint(IPAddress(high: 0x2600 << 48, low: 1), 443)

// MARK: Parsers

/// As long as `bytes`, as browsers pad it.
func hello(_ name: String, _ bytes: Int, records: [Int] = []) -> [UInt8] {
    var builder = HelloBuilder(name)
    builder.alpn = ["h2", "http/1.1"]
    builder.recordLengths = records
    builder.padding = 1
    builder.padding = max(1, bytes - builder.bytes.count + 1)
    return builder.bytes
}

func parseHello(_ length: Int, records: [Int] = []) -> (@Sendable (Int) -> Int)? {
    let bytes = Kept(kept(hello("app.example.com", length, records: records)))
    return { _ in
        guard case .ok(let hello) = ClientHello.parse(bytes.value, limit: 16384) else { return wrong }
        return hello.withServerName(in: bytes.value) { $0.count } ?? wrong
    }
}

let proxyV2: [UInt8] = {
    var memory = [UInt8](repeating: 0, count: 64)
    return memory.withUnsafeMutableBufferPointer { memory in
        var writer = ProxyV2Writer(proxy: ClientAddress(peer), to: DestinationAddress(listening), in: memory)
        return writer.finish().map(Array.init) ?? []
    }
}()

func parseProxy(_ header: [UInt8]) -> (@Sendable (Int) -> Int)? {
    let bytes = Kept(kept(header))
    return { _ in
        guard case .ok(let header) = ProxyHeader.parse(bytes.value) else { return wrong }
        return header.length
    }
}

// MARK: Names

func wireName(_ text: String) -> (@Sendable (Int) -> Int)? {
    let bytes = Kept(kept(Array(text.utf8)))
    return { _ in
        var name = ServerName()
        guard name.set(wire: bytes.value) else { return wrong }
        return name.withBytes { $0.count }
    }
}

func configName(_ text: String) -> (@Sendable (Int) -> Int)? {
    let bytes = Kept(kept(Array(text.utf8)))
    return { _ in
        guard let name = try? Hostname.canonical(bytes.value) else { return wrong }
        return name.withBytes { $0.count }
    }
}

// MARK: Lookups

func routes(_ count: Int) -> RouteTableSnapshot? {
    let seed = HashSeed(1, 2)
    let specs = (0..<count).map { number in
        var spec = RouteSpec(
            index: number, id: "rt_\(number)", org: "org", app: "app", env: "env",
            hostname: "app\(number).example.com", port: 443, hint: .tlsPassthrough,
            backends: [BackendSpec(Endpoint(IPAddress(high: 0xFD00 << 48, low: UInt64(number % 1000 + 1)), 8443))])
        (spec.proxyHeader, spec.backendExpectsProxy) = (.v2, true)
        return spec
    }
    let routing = RoutingState(seed: seed)
    guard routing.apply(StateDocument.config(specs, seed: seed).document).added == count else { return nil }
    // Its state goes; what the snapshot holds stays.
    return routing.snapshot
}

func lookUpRoute(_ count: Int, hit: Bool) -> (@Sendable (Int) -> Int)? {
    guard let snapshot = routes(count) else { return nil }
    var names: [ServerName] = []
    for number in 0..<256 {
        var name = ServerName()
        let text =
            hit ? "app\(Int(Hashing.mix(UInt64(number)) % UInt64(count))).example.com" : "no\(number).example.com"
        guard name.set(wire: kept(Array(text.utf8))) else { return nil }
        names.append(name)
    }
    let (table, all, destination) = (Kept(snapshot), FrozenArray(names), DestinationAddress(listening))
    return { number in
        let route = table.value.handle.named(all[number & 255], at: destination)
        return (route != nil) == hit ? number : wrong
    }
}

/// /48s out of 2600::/12, and addresses half of which lie in one.
func lookUpPrefix(_ count: Int) -> (@Sendable (Int) -> Int)? {
    let high = { (number: Int) in 0x2600 << 48 | (Hashing.mix(UInt64(number)) >> 20) << 16 }
    let prefixes = (0..<count).compactMap { Prefix(IPAddress(high: high($0) & ~0xFFFF, low: 0), length: 48) }
    guard prefixes.count == count, let table = PrefixTable([(prefixes, 0)]) else { return nil }
    let addresses = FrozenArray(
        (0..<256).map { number in
            IPAddress(high: high(number % 2 == 0 ? number % count : count + number) | 7, low: UInt64(number))
        })
    return { number in Int(table.value(of: addresses[number & 255])) }
}

// MARK: Chains

/// One connection's way through a chain whose hello came whole, as the worker goes it.
func evaluateChain(_ before: String, behind: String = "") -> (@Sendable (Int) -> Int)? {
    let config = """
        limit per_client {
            key         client/64
            rate        1M/s burst 1M
            concurrent  1M
            table       10k
        }
        pipeline tls {
            \(before)
            sni timeout 3s, max 16KiB
            backend round_robin
            proxy_v2
            \(behind)
        }
        listen [::]:443 tls_passthrough via tls
        """
    let compiled = compile(Array(config.utf8), file: "chain", catalog: catalog)
    guard let program = compiled.program, let snapshot = routes(1000), let chain = program.chains.buffer.first else {
        return nil
    }
    let count = chain.stages.count
    let context = StageContext(worker: 0, services: Services(FlowQueues()))
    let states = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: count)
    for (index, stage) in chain.stages.buffer.enumerated() {
        (states + index).initialize(to: stage.filter.makeStateErased(stage.settings, context))
    }
    let memory = Kept(ChainMemory(states, chain.stages.pointer(0)))
    let bytes = Kept(kept(hello("app7.example.com", 517)))
    let owners = Kept((program, snapshot, snapshot.handle, context))
    return { number in
        let (facts, prelude) = (memory.value.facts, memory.value.prelude)
        memory.value.lasting.pointee = LastingFacts(
            peer: PeerAddress(peer), destination: DestinationAddress(listening), listener: 0, hint: .tlsPassthrough,
            serial: UInt64(number))
        facts.pointee = ConnectionFacts(memory.value.lasting)
        prelude.pointee.reset()
        memory.value.kept.pointee.reset()
        let view = ConnectionView(
            facts: facts, bytes: bytes.value, input: .open, now: Instant(nanoseconds: 1_000_000_000),
            routes: owners.value.2)
        for index in 0..<count {
            let stage = memory.value.stages + index
            let verdict = stage.pointee.filter.evaluateErased(
                stage.pointee.settings, memory.value.states[index], view,
                Effects(facts: facts, prelude: prelude, memory: memory.value.kept))
            guard case .next = verdict else { return wrong }
        }
        return prelude.pointee.withBytes { $0.count }
    }
}

/// A slot's facts and prelude, and a worker's states: as long as the process.
struct ChainMemory {
    let states: UnsafeMutablePointer<UnsafeMutableRawPointer>
    let stages: UnsafePointer<Stage>
    let lasting: UnsafeMutablePointer<LastingFacts>
    let facts: UnsafeMutablePointer<ConnectionFacts>
    let prelude: UnsafeMutablePointer<Prelude>
    /// What stages keep.
    let kept: UnsafeMutablePointer<StageMemory>

    init(_ states: UnsafeMutablePointer<UnsafeMutableRawPointer>, _ stages: UnsafePointer<Stage>) {
        (self.states, self.stages) = (states, stages)
        lasting = .allocate(capacity: 1)
        lasting.initialize(to: LastingFacts())
        facts = .allocate(capacity: 1)
        facts.initialize(to: ConnectionFacts(lasting))
        prelude = .allocate(capacity: 1)
        prelude.initialize(to: Prelude())
        kept = .allocate(capacity: 1)
        kept.initialize(to: StageMemory())
    }
}
