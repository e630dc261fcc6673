import Pipeline

/// Finds the routes that no rule between routes is about: of a million almost all. ``Claims`` would serve each of them
/// whatever else there is, and none is in anybody's way, so it is not told of them.
///
/// A route is alone if there is no wildcard over its name, no raw route at its port, no entry of `hostnames` but its own
/// env's, and no route of its name but those of its env at other ports; if no other object has its id, and nothing is to
/// be said of it. What the last table has counts as what is asked for. Where this is unsure, a route is not alone.
struct LoneRoutes {
    private static let none = UInt32.max

    private let run: ApplyRun
    private let part: ApplyRun.Part
    /// By version: the first of its name; ``none``: it is not alone.
    private var heads: [UInt32]
    /// By version: of its name.
    private(set) var hashes: [UInt64]
    /// Of names that are not one env's at different ports.
    private var contested: Set<UInt32> = []
    /// Of names with several routes: the ports of all but the first.
    private var otherPorts: [UInt32: [UInt16]] = [:]
    private var names = HashIndex()
    private var rawPorts: Set<UInt16> = []
    /// Those of the document, and of entries.
    private let patterns: NameBook
    private var verdicts = Verdicts()

    /// - Parameter run: has collected its routes and entries.
    /// - Returns: nil for a change, and where two documents have routes: nobody is looked for.
    init?(_ run: ApplyRun) {
        guard run.scope == nil, run.state.seeksLone, let part = run.part(of: .state),
            run.versions.count == part.document.routes.count
        else { return nil }
        self.run = run
        self.part = part
        heads = Array(repeating: LoneRoutes.none, count: run.versions.count)
        hashes = Array(repeating: 0, count: run.versions.count)
        patterns = NameBook(seed: run.state.seed)
        names.reserve(run.versions.count)
        notePatterns()
        run.forEachApplied { notePatterns(of: $1) }
        look()
        run.forEachApplied { contest($0, $1) }
    }

    func isAlone(_ version: Int) -> Bool {
        heads[version] != LoneRoutes.none && (contested.isEmpty || !contested.contains(heads[version]))
    }

    private mutating func notePatterns() {
        for name in run.book.names where name.kind != .exact { _ = patterns.intern(name.bytes, name.kind) }
        for route in part.document.routes {
            if route.isRaw { rawPorts.insert(route.port) }
            let kind = route.options.nameKind
            if kind == .wildcard || kind == .suffix {
                _ = patterns.intern(part.document.text.bytes(route.name), kind)
            }
        }
    }

    private mutating func notePatterns(of route: UnsafePointer<TableRoute>) {
        let options = route.pointee.options
        if options.contains(.raw) { rawPorts.insert(route.pointee.port) }
        if options.contains(.wildcard) || options.contains(.suffix) {
            _ = patterns.intern(route.name, options.nameKind)
        }
    }

    /// What is applied keeps its name and port from others, unless its own next version has the name, and may be alone.
    private mutating func contest(_ entry: UInt32, _ route: UnsafePointer<TableRoute>) {
        let name = route.name
        guard !name.isEmpty, route.pointee.options.nameKind == .exact else { return }
        let hash = SipHash.hash(name, domain: KeyKind.exact.rawValue, seed: run.state.seed)
        let (text, routes) = (part.document.text, part.document.routes)
        guard let head = names.find(hash, where: { sameBytes(text.bytes(routes[Int($0)].name), name) }) else { return }
        let version = Int(run.store.entry(entry).pointee.candidate) - 1
        let isItsOwn =
            version >= 0 && heads[version] == head && route.pointee.alpnLength == 0
            && !rawPorts.contains(route.pointee.port)
            && part.env(routes[version].env) == run.state.env(of: route)
        if !isItsOwn { contested.insert(head) }
    }

    private mutating func look() {
        let (text, seed) = (part.document.text, run.state.seed)
        part.document.routes.withUnsafeBufferPointer { routes in
            for (index, route) in routes.enumerated() where route.name.length > 0 && route.options.nameKind == .exact {
                let name = text.bytes(route.name)
                let hash = SipHash.hash(name, domain: KeyKind.exact.rawValue, seed: seed)
                hashes[index] = hash
                let head = names.find(hash) { sameBytes(text.bytes(routes[Int($0)].name), name) }
                let isFit = isFit(index, route, name)
                guard let head else {
                    names.insert(hash, UInt32(truncatingIfNeeded: index))
                    heads[index] = UInt32(truncatingIfNeeded: index)
                    if !isFit { contested.insert(UInt32(truncatingIfNeeded: index)) }
                    continue
                }
                heads[index] = head
                if !isFit || !isBeside(route, routes[Int(head)], head) { contested.insert(head) }
            }
        }
    }

    /// One env may have a name at several ports.
    private mutating func isBeside(_ route: RouteObject, _ first: RouteObject, _ head: UInt32) -> Bool {
        let ports = otherPorts[head] ?? []
        guard route.env == first.env, route.port != first.port, !ports.contains(route.port),
            ports.count < Claims.portsPerName - 2
        else { return false }
        otherPorts[head] = ports + [route.port]
        return true
    }

    private mutating func isFit(_ index: Int, _ route: RouteObject, _ name: Bytes) -> Bool {
        guard !route.options.contains(.raw), !route.options.contains(.ipv4Required), route.alpnLength == 0,
            route.backendList == 0, !run.isAmbiguous(index), rawPorts.isEmpty || !rawPorts.contains(route.port)
        else { return false }
        let env = part.env(route.env)
        return run.hasOwner(env, part) && isUndisputed(name, env)
            && verdicts.isClean(route.options, route.port, run.state.rules)
            && run.keepsItsClaims(index, env, name)
    }

    /// No wildcard is over the name, and no entry is another env's.
    private func isUndisputed(_ name: Bytes, _ env: UInt32) -> Bool {
        if patterns.hasPatterns, patterns.isUnderPattern(name) { return false }
        guard !run.book.names.isEmpty, let number = run.book.find(name, .exact) else { return true }
        let first = run.book.names[Int(number)].entries
        guard first != NameBook.none else { return true }
        let entry = run.entries.list[Int(first)]
        return entry.env == env && entry.next == NameBook.none
    }

    /// What the rules for single routes say: of a million routes they see a handful of kinds.
    private struct Verdicts {
        private var known: [UInt32: Bool] = [:]
        private var last: (key: UInt32, isClean: Bool)?

        mutating func isClean(_ options: RouteOptions, _ port: UInt16, _ rules: RouteRules) -> Bool {
            let key = UInt32(options.rawValue) << 16 | UInt32(port)
            if let last, last.key == key { return last.isClean }
            let isClean = known[key] ?? rules.isClean(options, port: port)
            known[key] = isClean
            last = (key, isClean)
            return isClean
        }
    }
}

extension ApplyRun {
    /// If it is applied, then for the same env, and with the same name.
    func keepsItsClaims(_ index: Int, _ env: UInt32, _ name: Bytes) -> Bool {
        guard let current = store.entry(versions[index].entry).pointee.current else { return true }
        return state.env(of: current) == env && current.pointee.alpnLength == 0
            && current.pointee.options.nameKind == .exact && !current.pointee.options.contains(.raw)
            && sameBytes(current.name, name)
    }

    /// Serves a route that is alone.
    func serve(alone index: Int, hash: UInt64, _ groups: inout PlainGroups) {
        let (entry, part) = (versions[index].entry, Int(versions[index].part))
        let route = parts[part].document.routes[Int(versions[index].object)]
        let number = groups.number(pool(route.env, route.processType, parts[part]), route) {
            group(versions[index], route, parts[part])
        }
        versions[index].group = number
        versions[index].isAlone = true
        store.entry(entry).pointee.isServed = true
        if isSame(versions[index], route, parts[part]) {
            versions[index].isSame = true
            store.entry(entry).pointee.place = route.place
            report.unchanged += 1
            return
        }
        changes.append(
            Change(entry: entry, group: number, hash: hash, version: index, options: versions[index].options))
    }

    /// Other objects have its id.
    func isAmbiguous(_ index: Int) -> Bool { versions[index].isTwin || versions[index].isSpare }
}

/// The groups of routes that say nothing of their backends but where they are.
struct PlainGroups {
    private struct Key: Hashable {
        let pool: PoolKey
        let port: UInt16
        let balance: Balance?
    }
    private var numbers: [Key: UInt32] = [:]
    private var last: (key: Key, number: UInt32)?

    mutating func number(_ pool: PoolKey, _ route: RouteObject, make: () -> UInt32) -> UInt32 {
        let key = Key(pool: pool, port: route.backendPort, balance: route.options.balance)
        if let last, last.key == key { return last.number }
        let number = numbers[key] ?? make()
        numbers[key] = number
        last = (key, number)
        return number
    }
}
