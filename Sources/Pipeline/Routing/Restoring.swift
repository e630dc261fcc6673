import Pipeline

/// How objects were applied when a node ended, but for those that were as desired: what it keeps beside them.
public protocol AppliedObjects {
    func visit(_ body: (StateKind, _ id: Bytes, AppliedObject) -> Void)
}

extension RoutingState {
    /// Goes on where a node ended: what it served is served, whoever owned a name or an address owns it, and who waited
    /// waits (R5, R23). For a state without routes.
    ///
    /// - Parameters:
    ///   - objects: what is desired.
    ///   - applied: with the `text` of each `earlier`; one without is nothing.
    ///   - table: what was in force at an earlier moment, to be served where it lies; nil: all is read.
    ///   - meanwhile: applied between what was in force and what waits: the `route` blocks of a config file.
    public func restore(
        _ objects: some DesiredObjects, _ applied: some AppliedObjects, from table: KeptTable? = nil,
        meanwhile: () -> Void = {}
    ) -> ApplyReport {
        var view: [StateKind: [String: [UInt8]]] = [:]
        var touched = TouchedObjects()
        var (idle, names): ([String: AppliedObject], [String: AppliedObject]) = ([:], [:])
        var mismatched: Set<String> = []
        var holders: Set<[UInt8]> = []
        applied.visit { kind, id, object in
            let name = String(decoding: id, as: UTF8.self)
            touched.insert(kind, id)
            if let text = object.inForce { view[kind, default: [:]][name] = text }
            if object.flags.contains(.mismatched) { mismatched.insert(name) }
            if kind == .env, object.flags.contains(.holder) { holders.insert(Array(id)) }
            if object.flags.contains(.idle) { idle[name] = object }
            if kind == .hostname { names[name] = object }
        }
        let inForce = ChangedObjects(objects, view)
        restoredIPv4 = addresses(of: holders, inForce)
        isRestoring = true
        let noted = touched.ids[.route] ?? []
        let first =
            table.flatMap { start(from: $0, objects, inForce: inForce, noted: noted) } ?? applyAll(of: inForce)
        isRestoring = false
        restoredIPv4 = [:]
        putIdle(idle, objects)
        meanwhile()
        if !mismatched.isEmpty { refuse(mismatched, inForce) }
        putNames(names, objects)
        var report = apply(touched, of: objects)
        guard !report.isWhole else { return report }
        // What is said of objects that nobody has to decide about again, such as one whose every connection is refused.
        var said = ApplyReport()
        said.problems = first.problems
        said.add(report)
        report.problems = said.problems
        return report
    }

    private func addresses(of envs: Set<[UInt8]>, _ objects: some DesiredObjects) -> [UInt32: IPAddress] {
        guard !envs.isEmpty, let document = StateDocument.some([.env: envs], of: objects, seed: seed).document else {
            return [:]
        }
        var found: [UInt32: IPAddress] = [:]
        for object in document.envs {
            if let env = symbols.intern(document.symbols.bytes(object.env)), let address = object.ipv4 {
                found[env] = address
            }
        }
        return found
    }

    /// Instances that are no backends, as they were.
    private func putIdle(_ idle: [String: AppliedObject], _ objects: some DesiredObjects) {
        guard let (document, run) = reading(.instance, idle.keys, texts(of: idle), objects) else { return }
        let nodeName = Array(nodeName.utf8)
        for object in document.instances {
            let id = document.string(object.id)
            var record = nodeName.withUnsafeBufferPointer { run.record(object, run.parts[0], $0) }
            record.isServing = false
            record.isHolder = idle[id]?.flags.contains(.holder) ?? false
            _ = instances.update([id: record], of: [id])
        }
        run.assignSources(run.parts[0])
    }

    /// Entries of names, with who had them.
    private func putNames(_ names: [String: AppliedObject], _ objects: some DesiredObjects) {
        guard !names.isEmpty else { return }
        for name in names.keys.map({ NameKey($0) }) { name.withBytes { hostnames.remove($0, name.kind) } }
        putEntries(.granted, texts(of: names), objects)
        putEntries(.another, names.mapValues(\.beside).filter { !$0.value.isEmpty }, objects)
    }

    private func putEntries(
        _ standing: HostnameEntries.Entry.State, _ texts: [String: [UInt8]], _ objects: some DesiredObjects
    ) {
        guard let (document, run) = reading(.hostname, texts.keys, texts, objects) else { return }
        for object in document.hostnames {
            let env = run.entryOwners(run.parts[0].env(object.env)).first ?? RouteEntry.none
            var entry = HostnameEntries.Entry(
                name: NameBook.none, env: env, rank: ClaimRank(number: object.claimed), place: object.place)
            entry.state = standing
            hostnames.append(document.text.bytes(object.name), object.kind, entry)
        }
    }

    private func texts(of applied: [String: AppliedObject]) -> [String: [UInt8]] {
        applied.compactMapValues { if case .text(let text) = $0.version { text } else { nil } }
    }

    /// Some objects of a kind, those with a text as that has them, and a run in which they mean something.
    private func reading(
        _ kind: StateKind, _ ids: some Sequence<String>, _ texts: [String: [UInt8]], _ objects: some DesiredObjects
    ) -> (document: StateDocument, run: ApplyRun)? {
        let ids = Set(ids.map { Array($0.utf8) })
        guard !ids.isEmpty else { return nil }
        return StateDocument.some([kind: ids], of: ChangedObjects(objects, [kind: texts]), seed: seed).document
            .map { ($0, ApplyRun(self, [$0])) }
    }

    /// R16, as it was.
    private func refuse(_ ids: Set<String>, _ objects: some DesiredObjects) {
        var touched = TouchedObjects()
        for id in ids { touched.insert(.route, id.utf8) }
        var closure = ChangeClosure(self, ReadChange(touched, objects, self))
        closure.find()
        guard !closure.isTooWide, var document = StateDocument.some(closure.ids(self), of: objects, seed: seed).document
        else { return }
        document.refuse(ids)
        _ = ApplyRun(self, [document], closure.scope).run()
    }
}

extension StateDocument {
    /// Has routes for objects that can't be read, but disagree with what their backends expect.
    fileprivate mutating func refuse(_ ids: Set<String>) {
        let text = text
        routes.removeAll { ids.contains(text.string($0.id)) }
        quarantined[.route, default: []].formUnion(ids)
        mismatched.formUnion(ids)
    }
}

/// Objects, some of them otherwise.
struct ChangedObjects<Objects: DesiredObjects>: DesiredObjects {
    private let objects: Objects
    /// Empty: there is none.
    private let changed: [StateKind: [String: UnsafeMutableRawBufferPointer]]
    private let memory: Memory

    private final class Memory {
        var blocks: [UnsafeMutableRawBufferPointer] = []
        deinit { for block in blocks { block.deallocate() } }
    }

    init(_ objects: Objects, _ changed: [StateKind: [String: [UInt8]]]) {
        self.objects = objects
        let memory = Memory()
        self.changed = changed.mapValues { texts in
            texts.mapValues { text in
                let block = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
                block.copyBytes(from: text)
                memory.blocks.append(block)
                return block
            }
        }
        self.memory = memory
    }

    func text(_ kind: StateKind, _ id: Bytes) -> UnsafeRawBufferPointer? {
        guard let texts = changed[kind], let text = texts[String(decoding: id, as: UTF8.self)] else {
            return objects.text(kind, id)
        }
        return text.isEmpty ? nil : UnsafeRawBufferPointer(text)
    }

    func forEach(_ kind: StateKind, _ body: (Bytes, UnsafeRawBufferPointer) -> Void) {
        let texts = changed[kind] ?? [:]
        objects.forEach(kind) { id, text in
            if texts.isEmpty || texts[String(decoding: id, as: UTF8.self)] == nil { body(id, text) }
        }
        for (id, text) in texts where !text.isEmpty {
            var id = id
            id.withUTF8 { body($0, UnsafeRawBufferPointer(text)) }
        }
    }
}
