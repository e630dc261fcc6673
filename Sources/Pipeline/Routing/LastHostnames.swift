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

    private let text = TextArena()
    private(set) var entries: [Entry] = []
    /// By name, made when it is first asked for.
    private var index: [UInt64: [Int]]?

    func append(_ name: Bytes, _ kind: KeyKind, _ entry: HostnameEntries.Entry) {
        guard let ref = text.append(name) else { return }
        entries.append(
            Entry(
                name: ref, kind: kind, env: entry.env, rank: entry.rank, place: entry.place,
                isOwner: entry.state == .granted))
    }

    func reserveCapacity(_ count: Int) { entries.reserveCapacity(count) }

    func bytes(_ entry: Entry) -> Bytes { text.bytes(entry.name) }

    func find(_ name: Bytes, _ kind: KeyKind, seed: HashSeed) -> [Entry] {
        guard !entries.isEmpty else { return [] }
        func hash(_ name: Bytes, _ kind: KeyKind) -> UInt64 {
            SipHash.hash(name, domain: kind.rawValue, seed: seed)
        }
        if index == nil {
            var made: [UInt64: [Int]] = [:]
            made.reserveCapacity(entries.count)
            for (number, entry) in entries.enumerated() {
                made[hash(bytes(entry), entry.kind), default: []].append(number)
            }
            index = made
        }
        return (index?[hash(name, kind)] ?? []).map { entries[$0] }
            .filter { $0.kind == kind && sameBytes(bytes($0), name) }
    }

    /// The env that had the name by an entry.
    func owner(_ name: NameBook.Name, seed: HashSeed) -> UInt32? {
        find(name.bytes, name.kind, seed: seed).first(where: \.isOwner)?.env
    }
}

extension ApplyRun {
    /// R5: the data names the owners.
    func collectHostnames() {
        guard let part = part(of: .state) else {
            for entry in state.hostnames.entries {
                let name = book.intern(state.hostnames.bytes(entry), entry.kind)
                _ = entries.add(name, entry.env, entry.rank, entry.place, book)
            }
            return
        }
        let document = part.document
        entries.reserveCapacity(document.hostnames.count)
        for object in document.hostnames {
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
            state.hostnames.find($0, kind, seed: state.seed)
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
        let last = LastHostnames()
        last.reserveCapacity(entries.list.count)
        for entry in entries.list {
            let name = book.names[Int(entry.name)]
            last.append(name.bytes, name.kind, entry)
        }
        state.hostnames = last
    }
}
