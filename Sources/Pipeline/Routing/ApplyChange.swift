import Pipeline

/// Changes: what came since the last document, applied by what it touches and not by what there is.
extension RoutingState {
    /// Applies what a change has put and deleted, under the rules of ``apply(together:at:)``: what is served, and what is
    /// said of the objects that the change reaches, is as if the whole document had been applied.
    ///
    /// - Parameters:
    ///   - objects: desired state with the change in it.
    ///   - now: as for a document.
    public func apply(
        _ touched: TouchedObjects, of objects: some DesiredObjects, at now: Instant? = nil
    ) -> ApplyReport {
        time = clock?()
        var closure = ChangeClosure(self, ReadChange(touched, objects, self))
        closure.find()
        guard !closure.isTooWide else { return applyAll(of: objects, at: now) }
        let (document, problems) = StateDocument.some(closure.ids(self), of: objects, seed: seed)
        guard let document else { return applyAll(of: objects, at: now) }
        self.now = now
        var report = ApplyRun(self, [document], closure.scope).run()
        report.problems.add(problems)
        return report
    }

    /// Somebody waits for what the last change took away: another, empty change is to follow.
    public var isUnsettled: Bool { !unsettled.isEmpty }

    /// Applies all objects as one document: for rules that are others now, too.
    /// - Parameter blocks: the `route` blocks; nil: those that were applied last.
    public func applyAll(
        of objects: some DesiredObjects, with blocks: StateDocument? = nil, at now: Instant? = nil
    ) -> ApplyReport {
        let blocks = blocks ?? self.blocks
        let (document, problems) = StateDocument.all(of: objects, seed: seed)
        guard let document else {
            var report = ApplyReport()
            report.problems = problems
            return report
        }
        var report = apply(together: [blocks, document].compactMap { $0 }, at: now)
        waitingDocument = nil
        report.problems.add(problems)
        return report
    }

    // MARK: What there is

    func entry(of id: String) -> UInt32? {
        var id = id
        return id.withUTF8 { bytes in
            ids.find(SipHash.hash(bytes, domain: 3, seed: seed)) {
                sameBytes(store.id($0), bytes)
            }
        }
    }

    func isRaw(_ entry: UInt32) -> Bool { store.entry(entry).pointee.current?.pointee.options.contains(.raw) ?? false }

    func env(of route: UnsafePointer<TableRoute>) -> UInt32 { groups[route.pointee.group].key.env }

    func env(of entry: UInt32) -> UInt32 {
        store.entry(entry).pointee.current.map { env(of: $0) } ?? RouteEntry.none
    }

    /// Served routes with this name, at whichever port.
    func entries(named name: NameKey) -> [UInt32] {
        name.withBytes { bytes in
            let table = snapshot.table.pointee
            let hash = RouteTable.hash(bytes, name.kind, port: 0, seed: seed)
            var found = Array(namedRaw[name] ?? [])
            table.shards[RouteTable.shard(of: hash, bits: table.shardBits)].visit(
                bytes, hash: hash, kind: name.kind
            ) { found.append($0.pointee.entry) }
            return found
        }
    }

    func hasEntries(named name: NameKey) -> Bool { !entries(named: name).isEmpty }

    /// A `route` block has this owner.
    func hasConfigEnv(_ name: EnvName) -> Bool {
        envs.values.contains { $0.sources & StateDocument.Source.config.bit != 0 && $0.identity == name }
    }
}

extension ApplyReport {
    /// Takes over what came right behind.
    public mutating func add(_ next: ApplyReport) {
        added += next.added
        changed += next.changed
        removed += next.removed
        backendsChanged += next.backendsChanged
        shardsBuilt += next.shardsBuilt
        drains = next.drains
        cooling = next.cooling
        for (kind, objects) in next.applied { applied[kind, default: [:]].merge(objects) { $1 } }
        // Of what was decided about again the later word counts.
        var said = RouteProblems()
        for problem in problems.list where !next.decided(problem) { said.add(problem) }
        said.add(next.problems)
        problems = said
    }

    private func decided(_ problem: RouteProblem) -> Bool {
        guard let id = problem.id else { return false }
        return applied.contains { $0.key.list.dropLast() == problem.object.rawValue && $0.value[id] != nil }
    }
}

extension ChangeClosure {
    /// What the document of the change has.
    func ids(_ state: RoutingState) -> [StateKind: Set<[UInt8]>] {
        var envs = Set(scope.envs.map { Array(state.symbols.bytes($0)) })
        if scope.assignsAddresses { envs.formUnion(state.ipv4Wishes.map { Array(state.symbols.bytes($0)) }) }
        return [
            .org: Set(scope.orgs.map { Array($0.utf8) }), .env: envs,
            .instance: Set(scope.instances.map { Array($0.utf8) }),
            .route: Set(scope.routes.map { Array($0.utf8) }),
            .hostname: Set(scope.hostnames.filter { $0.kind != .client }.map { Array($0.whole.utf8) }),
        ]
    }
}

extension RouteTableSnapshot {
    func forEachTableRoute(_ body: (UnsafePointer<TableRoute>) -> Void) {
        for shard in table.pointee.shards { shard.visit(body) }
    }
}

extension UnsafePointer<TableRoute> {
    var nameKey: NameKey? { pointee.nameLength > 0 ? NameKey(name, pointee.options.nameKind) : nil }
}
