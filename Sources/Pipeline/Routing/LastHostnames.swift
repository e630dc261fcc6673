import Pipeline

/// The applied entries of `hostnames`: those whose new entry can't be read stay (R24), and a previous owner keeps the
/// name where nothing else decides.
final class LastHostnames {
    struct Entry {
        let name: TextRef
        let kind: KeyKind
        let env: UInt32
        let rank: ClaimRank
        let place: Place
        /// The env has the name by it.
        let isOwner: Bool
    }

    private var text = TextArena()
    private(set) var entries: [Entry] = []
    /// By name; those that have gone are not in it.
    private var index = HashIndex()
    /// Numbers in ``entries`` that have gone.
    private var gone: Set<Int> = []
    private let seed: HashSeed

    init(seed: HashSeed) { self.seed = seed }

    func append(_ name: Bytes, _ kind: KeyKind, _ entry: HostnameEntries.Entry) {
        guard let ref = text.append(name), let number = UInt32(exactly: entries.count) else { return }
        entries.append(
            Entry(
                name: ref, kind: kind, env: entry.env, rank: entry.rank, place: entry.place,
                isOwner: entry.state == .granted))
        index.insert(hash(name, kind), number)
    }

    func reserveCapacity(_ count: Int) {
        entries.reserveCapacity(count)
        index.reserve(count)
    }

    func bytes(_ entry: Entry) -> Bytes { text.bytes(entry.name) }

    private func hash(_ name: Bytes, _ kind: KeyKind) -> UInt64 {
        SipHash.hash(name, domain: kind.rawValue, seed: seed)
    }

    private func numbers(_ name: Bytes, _ kind: KeyKind) -> [UInt32] {
        var found: [UInt32] = []
        _ = index.find(hash(name, kind)) { number in
            let entry = entries[Int(number)]
            if entry.kind == kind, sameBytes(bytes(entry), name) { found.append(number) }
            return false
        }
        return found
    }

    func find(_ name: Bytes, _ kind: KeyKind) -> [Entry] { numbers(name, kind).sorted().map { entries[Int($0)] } }

    /// The env that had the name by an entry.
    func owner(_ name: Bytes, _ kind: KeyKind) -> UInt32? { find(name, kind).first(where: \.isOwner)?.env }

    /// Each that is there.
    func visit(_ body: (Entry) -> Void) {
        for (number, entry) in entries.enumerated() where !gone.contains(number) { body(entry) }
    }

    // MARK: Some of them

    /// Takes out what names have.
    func remove(_ name: Bytes, _ kind: KeyKind) {
        for number in numbers(name, kind) {
            index.remove(hash(name, kind), number)
            gone.insert(Int(number))
        }
    }

    /// Without what has gone, if that is the most of it.
    func compacted() -> LastHostnames {
        guard gone.count > 1024, gone.count > entries.count / 2 else { return self }
        let next = LastHostnames(seed: seed)
        visit { entry in
            guard let ref = next.text.append(bytes(entry)) else { return }
            next.index.insert(hash(bytes(entry), entry.kind), UInt32(truncatingIfNeeded: next.entries.count))
            next.entries.append(
                Entry(
                    name: ref, kind: entry.kind, env: entry.env, rank: entry.rank, place: entry.place,
                    isOwner: entry.isOwner))
        }
        return next
    }
}

extension ApplyRun {
    /// R5: the data names the owners.
    func collectHostnames() {
        guard let part = part(of: .state) else {
            state.hostnames.visit { entry in
                let name = book.intern(state.hostnames.bytes(entry), entry.kind)
                _ = entries.add(name, entry.env, entry.rank, entry.place, book)
            }
            return
        }
        let document = part.document
        entries.reserveCapacity(document.hostnames.count)
        if let scope { state.pathNames.subtract(scope.hostnames) } else { state.pathNames = [] }
        for object in document.hostnames {
            if document.symbols.bytes(object.env).contains(UInt8(ascii: "/")) {
                state.pathNames.insert(NameKey(document.text.bytes(object.name), object.kind))
            }
            let owners = entryOwners(part.env(object.env))
            for env in owners where env != RouteEntry.none { collect(object, of: env, part) }
            guard owners.count > 1, report.problems.hasRoom else { continue }
            problem(
                .rejected, .hostname, document.hostname(object), "env_id", object.place.origin(part.source),
                "\"\(document.symbol(object.env))\" is ambiguous: it is the id of \(state.owner(owners[0])) and the "
                    + "path of another env",
                remedy: "change the first one's env_id to one without \"/\"")
        }
        for text in document.quarantined[.hostname] ?? [] { keepHostnames(text) }
    }

    private func collect(_ object: HostnameObject, of env: UInt32, _ part: Part) {
        let document = part.document
        let name = book.intern(document.text.bytes(object.name), object.kind)
        if !entries.add(name, env, ClaimRank(number: object.claimed), object.place, book) {
            problem(
                .warning, .hostname, document.hostname(object), "hostname", object.place.origin(part.source),
                "is assigned to \"\(document.symbol(object.env))\" twice; the lower \"claimed\" counts",
                remedy: "remove one of them")
        }
        if state.envs[env].map({ $0.sources == 0 }) ?? !unclearEnvs.contains(env), report.problems.hasRoom {
            problem(
                .warning, .hostname, document.hostname(object), "env_id", object.place.origin(part.source),
                "\"\(document.symbol(object.env))\" is not in envs: the name stays reserved for it",
                remedy: "add the env, or remove the entry")
        }
    }

    /// R24: its entry can't be read, so those of last time stay.
    private func keepHostnames(_ text: String) {
        let (kind, bytes) = KeyKind.split(text)
        let kept = bytes.withUnsafeBufferPointer {
            state.hostnames.find($0, kind)
        }
        for entry in kept {
            let name = book.intern(state.hostnames.bytes(entry), kind)
            if !entries.has(name, entry.env, book) {
                _ = entries.add(name, entry.env, entry.rank, entry.place, book)
                entries.markKept()
            }
        }
    }

    func rememberHostnames() {
        guard part(of: .state) != nil else { return }
        guard let scope else {
            let last = LastHostnames(seed: state.seed)
            last.reserveCapacity(entries.list.count)
            for entry in entries.list {
                let name = book.names[Int(entry.name)]
                last.append(name.bytes, name.kind, entry)
            }
            state.hostnames = last
            return
        }
        // Names that are kept stand in the text that is about to grow.
        let texts = entries.list.map { Array(book.names[Int($0.name)].bytes) }
        for name in scope.hostnames { name.withBytes { state.hostnames.remove($0, name.kind) } }
        for (entry, text) in zip(entries.list, texts) {
            let kind = book.names[Int(entry.name)].kind
            text.withUnsafeBufferPointer { state.hostnames.append($0, kind, entry) }
        }
        state.hostnames = state.hostnames.compacted()
    }
}
