import Pipeline
import PipelineRouting

/// What must hold when any bytes whatever come as desired state, twice in a row. For the tests beside it and for Fuzz/run.
///
/// An input is two documents with a line `---` between them, or one that is applied twice. A config document with a few
/// routes was applied before, so that ownership between the two sources is at stake as well.
enum StateProperties {
    static let separator = Array("\n---\n".utf8)
    private static let seed = HashSeed(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let (first, second) = documents(bytes)
        let (problem, store) = applied(first, second)
        if let problem { return problem }
        return store.liveBlocks == 0 ? nil : "\(store.liveBlocks) blocks leak"
    }

    private static func documents(
        _ bytes: UnsafeBufferPointer<UInt8>
    ) -> (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>) {
        let count = separator.count
        for index in 0..<max(0, bytes.count - count + 1)
        where bytes[index] == separator[0] && bytes[index..<index + count].elementsEqual(separator) {
            return (.init(rebasing: bytes[..<index]), .init(rebasing: bytes[(index + count)...]))
        }
        return (bytes, bytes)
    }

    /// The state and its snapshots are gone when this returns.
    private static func applied(
        _ first: UnsafeBufferPointer<UInt8>, _ second: UnsafeBufferPointer<UInt8>
    ) -> (String?, RouteStore) {
        let state = RoutingState(seed: seed)
        let (config, _) = StateDocument.config(configRoutes, seed: seed)
        _ = state.apply(config)
        var steps = StateSteps(state)
        guard steps.served.count == configRoutes.count else {
            return ("the config's routes are not served", state.memory)
        }
        for (number, text) in [first, second].enumerated() {
            if let problem = steps.step(text) { return ("document \(number + 1): \(problem)", state.memory) }
        }
        return (nil, state.memory)
    }

    private static let configRoutes: [RouteSpec] = [
        ("held", "held.example.com", 443), ("star", "*.held.example.com", 443), ("tree", ".deep.held.example.com", 443),
        ("raw", nil, 7000),
    ].enumerated().map { index, route in
        RouteSpec(
            index: index, id: "config_\(route.0)", org: "acme", app: "shop", env: "held", hostname: route.1,
            port: route.2, hint: route.1 == nil ? .tcpRaw : .tlsPassthrough,
            backends: [BackendSpec(Endpoint(IPAddress(high: 0xFD00 << 48, low: 1), 8443))])
    }

    static func parse(_ text: UnsafeBufferPointer<UInt8>) -> (document: StateDocument?, problems: RouteProblems) {
        StateDocument.parse(text, seed: seed)
    }
}

/// One state, document after document, and what is known of it.
private struct StateSteps {
    let state: RoutingState
    private var now = Instant(nanoseconds: 1_000_000_000)
    /// Ids of the config's routes. A state document may name routes of its own alike.
    private let configured: Set<String>
    /// What is served, by id.
    private(set) var served: [String: RouteListing]
    /// The env of each: by a document's `env_id`, or, with ``config`` in front, by a config route's path.
    private var envs: [String: String]

    init(_ state: RoutingState) {
        self.state = state
        served = StateSteps.routes(of: state.snapshot)
        configured = Set(served.keys)
        envs = served.mapValues { StateSteps.config + $0.owner }
    }

    /// In no `env_id`: a document's env is never a config route's, however its id reads.
    private static let config = "\u{0}"

    private static func routes(of snapshot: RouteTableSnapshot) -> [String: RouteListing] {
        Dictionary(snapshot.listing().map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
    }

    mutating func step(_ text: UnsafeBufferPointer<UInt8>) -> String? {
        let (document, problems) = StateProperties.parse(text)
        if let problem = places(of: problems, in: text) { return problem }
        let fatal = problems.list.filter { $0.severity == .fatal }
        guard let document else {
            return fatal.count == 1 && problems.list.last == fatal[0]
                ? nil : "no document, \(fatal.count) fatal problems"
        }
        guard fatal.isEmpty, !problems.hasFatal else { return "a document in spite of \(fatal)" }

        let (before, oldSnapshot) = (served, state.snapshot)
        let report = state.apply(document, at: now)
        now = now + .seconds(1)
        served = StateSteps.routes(of: state.snapshot)
        if StateSteps.routes(of: oldSnapshot) != before { return "the snapshot before has changed" }
        return places(of: report.problems, in: text) ?? counts(report, before) ?? owners(document, before)
            ?? conflicts() ?? lookups() ?? dedicated()
    }

    // MARK: What was reported

    private func places(of problems: RouteProblems, in text: UnsafeBufferPointer<UInt8>) -> String? {
        let lines = text.split(separator: 0x0A, omittingEmptySubsequences: false).map(\.count)
        for problem in problems.list {
            // The config's own routes may lose a name to an entry.
            if case .config? = problem.origin, let id = problem.id, configured.contains(id) { continue }
            guard case .file(let line, let column)? = problem.origin else { return "no place: \(problem)" }
            guard lines.indices.contains(line - 1), column >= 1, column <= lines[line - 1] + 1 else {
                return "outside of the text: \(problem)"
            }
        }
        return nil
    }

    private func counts(_ report: ApplyReport, _ before: [String: RouteListing]) -> String? {
        guard state.snapshot.routeCount == served.count else {
            return "\(state.snapshot.routeCount) routes counted, \(served.count) ids listed"
        }
        guard before.count + report.added - report.removed == served.count else {
            return "\(before.count) + \(report.added) - \(report.removed) routes, \(served.count) served"
        }
        return nil
    }

    // MARK: Who is served

    /// What a route claims, and for whom.
    private struct Claim: Equatable {
        let env: String
        let hostname: String?
        let port: UInt16
        let isRaw: Bool
        let condition: RouteCondition?
    }

    private func claim(_ route: RouteListing) -> Claim {
        Claim(
            env: envs[route.id] ?? "", hostname: route.hostname, port: route.port, isRaw: route.hint == .tcpRaw,
            condition: route.condition)
    }

    /// Every route that is served is one that this document asks for, or one that was served already, unchanged. One that
    /// was served and is asked for again as it was is still served, and so are the config's: unless its env is gone, an
    /// entry of `hostnames` may say otherwise, or another route of its env has its place.
    private mutating func owners(_ document: StateDocument, _ before: [String: RouteListing]) -> String? {
        var asked: [String: Claim] = [:]
        for route in document.routes {
            let id = document.string(route.id)
            guard asked[id] == nil else { continue }
            asked[id] = Claim(
                env: document.symbol(route.env), hostname: document.hostname(route), port: route.port,
                isRaw: route.isRaw, condition: document.condition(route))
        }
        let known = Set(document.envs.map { document.symbol($0.env) })
        let last = before.mapValues { claim($0) }
        for (id, route) in served {
            let isOld = last[id].map { fits(route, $0) } ?? false
            if let new = asked[id], fits(route, new), !(isOld && configured.contains(id)) {
                envs[id] = new.env
            } else if !isOld {
                return
                    "\(id) is \(route), asked for \(String(describing: asked[id])), was \(String(describing: last[id]))"
            }
        }
        for (id, was) in last where served[id] == nil || served[id].map({ claim($0) }) != was {
            let rivals = served.values.map { claim($0) }
            if !document.hostnames.isEmpty || rivals.contains(where: { $0.env == was.env && conflict($0, was) }) {
                continue
            }
            if configured.contains(id) { return "\(id) of the config is lost to a state document" }
            if asked[id] == was, known.contains(was.env) { return "\(id) is lost, and asked for as before" }
        }
        envs = envs.filter { served[$0.key] != nil }
        return strangers(document)
    }

    /// R5: where one entry is earlier than all others of its name, and no wildcard has one, only its env has the name.
    private func strangers(_ document: StateDocument) -> String? {
        guard !document.hostnames.contains(where: { ["*", "."].contains(document.hostname($0).prefix(1)) }) else {
            return nil
        }
        let entries = Dictionary(grouping: document.hostnames) { document.hostname($0) }
        for route in served.values {
            guard let name = route.hostname, let all = entries[name] else { continue }
            let lowest = all.compactMap(\.claimed).min()
            let first = Set(all.filter { $0.claimed == lowest }.map { document.symbol($0.env) })
            guard first.count == 1, let owner = first.first else { continue }
            if envs[route.id] != owner { return "\(name) is \(owner)'s, and served by \(route)" }
        }
        return nil
    }

    private func fits(_ route: RouteListing, _ claim: Claim) -> Bool {
        guard route.hostname == claim.hostname, route.port == claim.port, (route.hint == .tcpRaw) == claim.isRaw,
            route.condition == claim.condition
        else { return false }
        if claim.env.hasPrefix(StateSteps.config) { return route.owner == claim.env.dropFirst() }
        // As the end of a path writes it.
        return route.owner.hasSuffix(EnvName(org: "", app: "", env: claim.env).path.dropFirst())
    }

    /// R4, R5, R8 by brute force.
    private func conflicts() -> String? {
        let all = served.values.map { ($0.id, claim($0)) }
        for (index, one) in all.enumerated() {
            for other in all[(index + 1)...] where conflict(one.1, other.1) {
                return "both are served: \(one), \(other)"
            }
        }
        return nil
    }

    private func conflict(_ one: Claim, _ other: Claim) -> Bool {
        if one.port == other.port, one.isRaw || other.isRaw { return true }
        if case .client? = one.condition { return one.port == other.port && one.condition == other.condition }
        guard let name = one.hostname, let theirs = other.hostname else { return false }
        if name == theirs {
            let isOnePlace = one.port == other.port && one.condition == other.condition
            return one.env != other.env || (isOnePlace && !one.isRaw && !other.isRaw)
        }
        return one.env != other.env && PatternModel.clash(name, theirs)
    }

    // MARK: Lookups

    /// R4, R6: each is found by what it claims, and a port alone finds a route only if there is one.
    private func lookups() -> String? {
        let handle = state.snapshot.handle
        for route in served.values {
            let place = DestinationAddress(Endpoint(.unspecified, route.port))
            if let hostname = route.hostname, route.hint != .tcpRaw {
                let name =
                    hostname.hasPrefix("*.") ? "any-label" + hostname.dropFirst() : String(hostname.drop { $0 == "." })
                var server = ServerName()
                let isName = Array(name.utf8).withUnsafeBufferPointer { server.set(wire: $0) }
                // Nothing is below a suffix as long as a name can be.
                if !isName, hostname.hasPrefix("*."), name.utf8.count > ServerName.capacity { continue }
                let here = served.values.filter { $0.port == route.port && $0.hint != .tcpRaw }
                let takes = { (text: String, condition: RouteCondition?) in
                    here.first { $0.hostname == text && $0.condition == condition }
                }
                let first = PatternModel.order(name).lazy.compactMap { text in
                    route.condition.flatMap { takes(text, $0) } ?? takes(text, nil)
                }.first
                let exact = first ?? route
                let found = self.find(server, route.condition, at: place)
                if found != exact.id { return "\(name):\(route.port) finds \(found ?? "nothing"), not \(exact.id)" }
            }
            if case .client(let client)? = route.condition {
                let found = handle.speaking(client, at: place)?.pointee.id.string
                if found != route.id { return "\(client) at \(route.port) finds \(found ?? "nothing")" }
            }
            let there = served.values.filter { $0.port == route.port }
            let sole = handle.sole(at: place)?.pointee.id.string
            if sole != (there.count == 1 && route.condition == nil ? route.id : nil) {
                return "port \(route.port) alone finds \(sole ?? "nothing")"
            }
        }
        return nil
    }

    /// The route that a client of this condition is led to.
    private func find(_ name: ServerName, _ condition: RouteCondition?, at place: DestinationAddress) -> String? {
        guard case .alpn(let alpn)? = condition else {
            return state.snapshot.handle.named(name, at: place)?.pointee.id.string
        }
        let list = [UInt8(alpn.utf8.count)] + Array(alpn.utf8)
        return list.withUnsafeBufferPointer {
            state.snapshot.handle.named(name, offering: ALPNList($0), at: place)?.pointee.id.string
        }
    }

    /// R9: an address of an env's own is that env's alone, and serves none but its routes.
    private func dedicated() -> String? {
        var holders: [IPAddress: EnvName] = [:]
        for listener in state.dedicatedListeners {
            if let holder = holders[listener.address], holder != listener.env {
                return "\(listener.address) is of \(holder) and of \(listener.env)"
            }
            holders[listener.address] = listener.env
        }
        for (address, env) in holders {
            for route in served.values {
                let place = DestinationAddress(Endpoint(address, route.port))
                var server = ServerName()
                let name = Array((route.hostname ?? "none.example").utf8)
                let isName = name.withUnsafeBufferPointer { server.set(wire: $0) }
                let found = isName ? state.snapshot.handle.named(server, at: place) : nil
                for route in [found, state.snapshot.handle.sole(at: place)] {
                    if let id = route?.pointee.id.string, served[id]?.owner != env.path {
                        return "\(address) is of \(env), and serves \(id)"
                    }
                }
            }
        }
        return nil
    }
}

/// R4 as plainly as it can be said: which hostnames a text takes, and which of several wins.
enum PatternModel {
    /// Whether a name or wildcard takes a whole name.
    static func takes(_ pattern: String, _ name: String) -> Bool {
        if pattern.hasPrefix(".") { return ".\(name)".hasSuffix(pattern) }
        guard pattern.hasPrefix("*.") else { return pattern == name }
        return name.firstIndex(of: ".").map { name[$0...] == pattern.dropFirst() } ?? false
    }

    /// Names that tell two of them apart, if any does: what each is about, and one and two labels below.
    private static func witnesses(_ pattern: String) -> [String] {
        let base = String(pattern.drop { $0 == "*" || $0 == "." })
        return [base, "w.\(base)", "v.w.\(base)"]
    }

    /// Whether some name is taken by both.
    static func clash(_ one: String, _ other: String) -> Bool {
        (witnesses(one) + witnesses(other)).contains { takes(one, $0) && takes(other, $0) }
    }

    /// What takes a name, the first first: whole, then by the longest suffix, one label before any depth.
    static func order(_ name: String) -> [String] {
        let labels = name.split(separator: ".", omittingEmptySubsequences: false)
        return [name, ".\(name)"]
            + labels.indices.dropFirst().flatMap { count in
                let suffix = labels.dropFirst(count).joined(separator: ".")
                return count == 1 ? ["*.\(suffix)", ".\(suffix)"] : [".\(suffix)"]
            }
    }
}
