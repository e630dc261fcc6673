import Pipeline

/// Builds the competing claims from the documents and the applied routes.
extension ApplyRun {
    func collectRoutes() {
        versions.reserveCapacity(parts.reduce(0) { $0 + $1.document.routes.count })
        // Of those that are there at the start most stay.
        let areMany = scope == nil && state.ids.isUnused && versions.capacity >= BulkShards.least
        if areMany { state.ids.reserve(versions.capacity) }
        for number in parts.indices {
            let document = parts[number].document
            for index in document.routes.indices { collect(number, index, document, areMany: areMany) }
        }
        settleTwins()
        noteKnownEnvs()
    }

    /// After entries of `hostnames` are collected, too.
    func claimRoutes() {
        if let lone = LoneRoutes(self) {
            var groups = PlainGroups()
            changes.reserveCapacity(versions.count)
            for index in versions.indices where !versions[index].isSpare {
                if lone.isAlone(index) {
                    serve(alone: index, hash: lone.hashes[index], &groups)
                } else {
                    claim(index)
                }
            }
        } else {
            claims.reserve(versions.count)
            for index in versions.indices where !versions[index].isSpare { claim(index) }
        }
        forEachApplied(claimApplied)
    }

    func object(_ version: Version) -> RouteObject {
        parts[Int(version.part)].document.routes[Int(version.object)]
    }
    func document(_ version: Version) -> StateDocument { parts[Int(version.part)].document }
    func origin(_ version: Version) -> Origin { object(version).place.origin(document(version).source) }

    /// Each route of the last table that is decided about.
    func forEachApplied(_ body: (UInt32, UnsafePointer<TableRoute>) -> Void) {
        // What is in force is not to be decided about again.
        guard mapped == nil else { return }
        if let scope {
            for entry in scope.entries { if let current = store.entry(entry).pointee.current { body(entry, current) } }
            return
        }
        state.snapshot.forEachTableRoute { body($0.pointee.entry, $0) }
    }

    private func isApplying(_ source: StateDocument.Source) -> Bool { part(of: source) != nil }

    private func collect(_ number: Int, _ index: Int, _ document: StateDocument, areMany: Bool) {
        let object = document.routes[index]
        let id = document.text.bytes(object.id)
        let hash = SipHash.hash(id, domain: 3, seed: state.seed)
        let known = state.ids.find(hash) { sameBytes(self.id(of: $0), id) }
        if let known, store.entry(known).pointee.current != nil {
            let source = store.entry(known).pointee.source
            if source != document.source, !isApplying(source) {
                problemTwice(
                    .route, document.string(object.id), "route_id", object.place.origin(document.source),
                    isSame: false, kept: true)
                return
            }
        }
        let entry = known ?? (areMany ? store.makeEntry(ofMany: id) : store.makeEntry(id: id))
        if known == nil { state.ids.insert(hash, entry) }
        versions.append(
            Version(
                entry: entry, part: UInt8(truncatingIfNeeded: number), object: UInt32(index), options: object.options))
        let first = store.entry(entry).pointee.candidate
        if first == 0 {
            store.entry(entry).pointee.candidate = UInt32(versions.count)
        } else {
            twins[entry, default: [Int(first) - 1]].append(versions.count - 1)
        }
    }

    /// Two objects with one id: the order must not say which counts.
    private func settleTwins() {
        for (entry, all) in twins.sorted(by: { claims.idOrder($0.key, $1.key) }) {
            let isSame = all.allSatisfy { isAlike(versions[$0], versions[all[0]]) }
            let kept = store.entry(entry).pointee.current != nil
            for index in isSame ? all.dropFirst() : all[...] {
                let id = document(versions[index]).string(object(versions[index]).id)
                problemTwice(.route, id, "route_id", origin(versions[index]), isSame: isSame, kept: kept)
                if isSame { versions[index].isSpare = true } else { versions[index].isTwin = true }
            }
        }
    }

    private func isAlike(_ one: Version, _ other: Version) -> Bool {
        guard one.part == other.part else { return false }
        let (a, b, text) = (object(one), object(other), document(one).text)
        return a.env == b.env && a.processType == b.processType && a.backendPort == b.backendPort && a.port == b.port
            && a.options == b.options && a.maxConnections == b.maxConnections
            && sameBytes(text.bytes(a.name), text.bytes(b.name)) && backends(one) == backends(other)
            && sameBytes(document(one).alpn(a), document(one).alpn(b))
    }

    private func backends(_ version: Version) -> BackendList? {
        let list = object(version).backendList
        return list > 0 ? document(version).backendLists[Int(list) - 1] : nil
    }

    // MARK: One version

    private func claim(_ index: Int) {
        let part = parts[Int(versions[index].part)]
        let object = object(versions[index])
        let env = part.env(object.env)
        guard admit(index, object, part) else {
            versions[index].isBroken = true
            return
        }
        let isUnclear = !isKnown(env, part)
        if !isUnclear {
            versions[index].group = group(versions[index], object, part)
            versions[index].isSame = isSame(versions[index], object, part)
        }
        let isSame = versions[index].isSame
        let node = Claims.Node(
            env: env, entry: versions[index].entry, version: UInt32(index), port: object.port, state: .open,
            isRaw: object.options.contains(.raw), isVoid: isUnclear || (versions[index].isTwin && !isSame),
            isApplied: isSame)
        versions[index].node = claims.add(node, name: name(part.document.text.bytes(object.name), object.options))
    }

    private func name(_ bytes: Bytes, _ options: RouteOptions) -> UInt32 {
        bytes.isEmpty ? NameBook.none : book.intern(bytes, options.nameKind)
    }

    /// Cheaper than a lookup for each route.
    private func noteKnownEnvs() {
        guard scope == nil else { return }
        knownEnvs = Array(repeating: 0, count: state.symbols.count)
        for (env, record) in state.envs where Int(env) < knownEnvs.count { knownEnvs[Int(env)] = known(record) }
    }
    private static let hasIPv4: UInt8 = 128

    private func known(_ record: RoutingState.EnvRecord) -> UInt8 {
        record.sources | (record.ipv4 == nil ? 0 : ApplyRun.hasIPv4)
    }

    private func known(_ env: UInt32) -> UInt8 {
        guard scope == nil else { return state.envs[env].map(known) ?? 0 }
        return Int(env) < knownEnvs.count ? knownEnvs[Int(env)] : 0
    }

    /// The same for ``LoneRoutes``.
    func hasOwner(_ env: UInt32, _ part: Part) -> Bool { isKnown(env, part) }

    private func isKnown(_ env: UInt32, _ part: Part) -> Bool {
        known(env) & part.bit != 0
    }

    /// True if the route meets the rules for a single route; else reports the broken one. Checks R16.
    private func admit(_ index: Int, _ object: RouteObject, _ part: Part) -> Bool {
        let isTwin = versions[index].isTwin
        func say(_ fault: RouteRules.Fault) {
            guard !isTwin else { return }
            problem(
                fault.severity, .route, part.document.string(object.id), fault.field,
                object.place.origin(part.source), fault.problem, remedy: fault.remedy)
        }
        if let fault = state.rules.fault(object.options, port: object.port, hasName: object.name.length > 0) {
            say(fault)
            return false
        }
        let env = part.env(object.env)
        if !isKnown(env, part) {
            say(
                RouteRules.Fault(
                    field: "env_id",
                    problem: unclearEnvs.contains(env)
                        ? "\"\(part.document.symbol(object.env))\" can't be used, so the route can't be served"
                        : "\"\(part.document.symbol(object.env))\" is not in envs, so the route has no owner",
                    remedy: "add the env, or name another"))
            return unclearEnvs.contains(env)
        }
        if var fault = state.rules.mismatch(object.options, port: object.port) {
            versions[index].options.insert(.proxyMismatch)
            // With such a block a config isn't started.
            if part.source == .state { fault.problem += "; its connections are refused as backend.proxy_mismatch" }
            say(fault)
        }
        if let list = backends(versions[index]), part.source == .state {
            if let name = list.healthName, state.rules.healths[name] == nil { say(.unknownHealth(name)) }
            if let policy = list.policy, !store.policies.hasRoom(for: policy) { say(.noRoomForQueue) }
        }
        let hasIPv4 = known(env) & ApplyRun.hasIPv4 != 0
        for fault in state.rules.warnings(object.options, port: object.port, hasIPv4: hasIPv4) { say(fault) }
        return true
    }

    func group(_ version: Version, _ object: RouteObject, _ part: Part) -> UInt32 {
        let list = backends(version)
        let key = GroupKey(
            pool: pool(object.env, object.processType, part), port: object.backendPort,
            addresses: list?.backends ?? [], isNamed: list?.name != nil, maxConnections: list?.maxConnections ?? 0,
            health: list?.health ?? list?.healthName.flatMap { state.rules.healths[$0] },
            policy: list?.policy.flatMap { store.policies.hasRoom(for: $0) ? $0 : $0.withoutQueue },
            isHashed: object.options.balance.map { $0 == .consistentHash } ?? state.hashesByDefault)
        let cursor = cursor(version.entry, key.env)
        let number = state.groups.number(key) { makeBackends(key, cursor: cursor) }
        if state.groups.isEmpty(number) { touchedGroups.insert(number) }
        return number
    }

    /// Where round robin of the route stands: other backends go on from there (R11).
    private func cursor(_ entry: UInt32, _ env: UInt32) -> UInt64 {
        guard let current = store.entry(entry).pointee.current, state.groups[current.pointee.group].key.env == env
        else { return 0 }
        return state.groups.box(current.pointee.group)?.pointee.group.cell.pointee.cursor.load(ordering: .relaxed) ?? 0
    }

    func isSame(_ version: Version, _ object: RouteObject, _ part: Part) -> Bool {
        let entry = store.entry(version.entry)
        guard let current = entry.pointee.current, entry.pointee.source == part.source else { return false }
        return current.pointee.port == object.port && current.pointee.options == version.options
            && current.pointee.group == version.group && current.pointee.maxConnections == object.maxConnections
            && sameBytes(current.name, part.document.text.bytes(object.name))
            && sameBytes(current.alpn, part.document.alpn(object))
    }

    /// The ALPN protocol that a claim asks for; empty: any, or none.
    func alpn(of node: Claims.Node) -> Bytes {
        guard node.version != Claims.none else {
            return store.entry(node.entry).pointee.current?.alpn ?? Bytes(start: nil, count: 0)
        }
        let version = versions[Int(node.version)]
        return document(version).alpn(object(version))
    }

    // MARK: What is applied

    /// Routes of the last table compete too, where their document has no usable version.
    private func claimApplied(_ entry: UInt32, _ route: UnsafePointer<TableRoute>) {
        let first = Int(store.entry(entry).pointee.candidate) - 1
        if first >= 0, versions[first].isSame || versions[first].isAlone { return }
        let env = state.groups[route.pointee.group].key.env
        let name = name(route.name, route.pointee.options)
        applied.append(Applied(name: name, env: env, port: route.pointee.port, isRaw: isRaw(route)))
        guard let state = appliedState(entry, route, env, first: first) else { return }
        let node = Claims.Node(
            env: env, entry: entry, version: Claims.none, port: route.pointee.port, state: state,
            isRaw: isRaw(route), isVoid: false, isApplied: state == .open)
        let successor = first >= 0 && versions[first].node != Claims.none ? versions[first].node : nil
        claims.add(node, name: name, successor: successor)
    }

    private func isRaw(_ route: UnsafePointer<TableRoute>) -> Bool { route.pointee.options.contains(.raw) }

    /// How the applied version of a route competes; nil: it is removed.
    private func appliedState(
        _ entry: UInt32, _ route: UnsafePointer<TableRoute>, _ env: UInt32, first: Int
    ) -> Claims.Node.State? {
        let source = store.entry(entry).pointee.source
        guard let part = part(of: source) else { return .open }
        let options = route.pointee.options
        guard isKnown(env, part),
            state.rules.fault(options, port: route.pointee.port, hasName: route.pointee.nameLength > 0) == nil
        else { return nil }
        guard first >= 0 else {
            // R24: its object can't be read.
            let quarantined = part.document.quarantined[.route] ?? []
            return !quarantined.isEmpty && quarantined.contains(String(decoding: id(of: entry), as: UTF8.self))
                ? .open : nil
        }
        if versions[first].isTwin {
            let isClaimed = twins[entry]?.contains { versions[$0].isSame && versions[$0].node != Claims.none } ?? false
            return isClaimed ? nil : .waiting
        }
        return versions[first].isBroken && isKnown(versions[first]) ? .open : .waiting
    }

    /// The env of a version is one of its document.
    private func isKnown(_ version: Version) -> Bool {
        let part = parts[Int(version.part)]
        return isKnown(part.env(object(version).env), part)
    }
}
