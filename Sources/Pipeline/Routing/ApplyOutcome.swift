import Pipeline

/// Decides every claim, and the outcome of each route.
extension ApplyRun {
    /// A name and port of a changed route in the last table.
    struct Applied {
        let name: UInt32
        let env: UInt32
        let port: UInt16
        let isRaw: Bool
    }

    func resolve() {
        book.linkWildcards()
        claims.namedElsewhere = scope?.namedElsewhere ?? [:]
        claims.linkPorts()
        // The seam for what outlives a restart: a last good state that was stored says the same of names and ports.
        for had in applied {
            if had.name != NameBook.none { claims.had(name: had.name, had.env) }
            claims.had(port: had.port, had.env, isRaw: had.isRaw)
        }
        entries.resolve(book) { [claims, state] name, env in
            if let group = claims.group(name, env), claims.groups[Int(group)].isSecure { return true }
            let known = self.book.names[Int(name)]
            return state.hostnames.owner(known.bytes, known.kind) == env
        }
        claims.solve()
    }

    func decide() {
        for node in claims.nodes where node.state == .isIn {
            store.entry(node.entry).pointee.isServed = true
            if node.version == Claims.none { keep(node) } else { serve(Int(node.version)) }
        }
        forEachApplied { entry, _ in
            if !store.entry(entry).pointee.isServed { removed.append(entry) }
            store.entry(entry).pointee.isServed = false
        }
    }

    private func serve(_ index: Int) {
        let version = versions[index]
        let object = object(version)
        guard !version.isSame else {
            store.entry(version.entry).pointee.place = object.place
            if version.isTwin { report.kept += 1 } else { report.unchanged += 1 }
            return
        }
        let hash = RouteTable.hash(
            document(version).text.bytes(object.name), KeyKind(object.options), port: object.port, seed: state.seed)
        changes.append(
            Change(
                entry: entryOfItsOwn(index), group: version.group, hash: hash, version: index, options: version.options)
        )
    }

    /// A route belongs to its env: under the same id, another env's route counts as removed, and the new one starts
    /// with fresh counters and limits.
    private func entryOfItsOwn(_ index: Int) -> UInt32 {
        let entry = versions[index].entry
        let env = parts[Int(versions[index].part)].env(object(versions[index]).env)
        guard let current = store.entry(entry).pointee.current,
            state.groups[current.pointee.group].key.env != env
        else {
            share(index, env)
            return entry
        }
        let id = id(of: entry)
        let fresh = store.makeEntry(id: id)
        state.ids.insert(SipHash.hash(id, domain: 3, seed: state.seed), fresh)
        store.entry(fresh).pointee.candidate = UInt32(index + 1)
        store.entry(fresh).pointee.isServed = true
        store.entry(entry).pointee.candidate = 0
        store.entry(entry).pointee.isServed = false
        versions[index].entry = fresh
        share(index, env)
        return fresh
    }

    /// The claims of a config file's route have one cell.
    private func share(_ index: Int, _ env: UInt32) {
        let version = versions[index]
        guard parts[Int(version.part)].source == .config else { return }
        let id = document(version).string(object(version).id)
        store.share(
            RouteCellKey(id: String(id.prefix { $0 != StateDocument.claimMark }), env: env), by: version.entry)
    }

    /// The applied version stays, unless its PROXY setting contradicts what the backend expects now (R16).
    private func keep(_ node: Claims.Node) {
        let entry = store.entry(node.entry)
        guard let part = part(of: entry.pointee.source), let current = entry.pointee.current else { return }
        report.kept += 1
        var options = current.pointee.options.subtracting(.proxyMismatch)
        let index = Int(entry.pointee.candidate) - 1
        let isRefused =
            index >= 0
            ? all(index).contains { isMismatched(versions[$0]) }
            : part.document.mismatched.contains(String(decoding: id(of: node.entry), as: UTF8.self))
                || current.pointee.options.contains(.proxyMismatch)
        if isRefused || state.rules.mismatch(options, port: current.pointee.port) != nil {
            options.insert(.proxyMismatch)
        }
        // Whatever else its new version asks for, and doesn't get.
        if index >= 0, all(index).contains(where: { object(versions[$0]).options.contains(.withdrawn) }) {
            options.insert(.withdrawn)
        }
        if index < 0, options.contains(.proxyMismatch) { reportRefused(node) }
        guard options != current.pointee.options else { return }
        let hash = RouteTable.hash(
            current.name, KeyKind(options), port: current.pointee.port, seed: state.seed)
        changes.append(
            Change(entry: node.entry, group: current.pointee.group, hash: hash, version: nil, options: options))
    }

    /// Its object can't be read, but the readable part contradicts the applied PROXY settings.
    private func reportRefused(_ node: Claims.Node) {
        let entry = store.entry(node.entry)
        problem(
            .warning, .route, String(decoding: id(of: node.entry), as: UTF8.self), "proxy_protocol",
            entry.pointee.place.origin(entry.pointee.source),
            "and backend_expects_proxy_protocol of its new version disagree or can't be read: its connections are "
                + "refused as backend.proxy_mismatch",
            remedy: "fix the object, or restore its previous version")
    }

    private func all(_ index: Int) -> [Int] { twins[versions[index].entry] ?? [index] }

    private func isMismatched(_ version: Version) -> Bool {
        let options = object(version).options
        return version.options.contains(.proxyMismatch)
            || options.contains(.proxyHeader) != options.contains(.expectsProxy)
    }
}
