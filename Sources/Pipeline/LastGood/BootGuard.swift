import Pipeline
import PipelineRouting
import PipelineState

/// Which update is the newest of a store, and how to go back behind it.
struct UpdatePosition: Equatable {
    /// How many updates there were that changed objects.
    var number: UInt64 = 0
    /// The store's sequence before it.
    var before: UInt64 = 0
    /// Of what it said.
    var digest: UInt64 = 0

    var facts: [(name: String, value: String)] {
        [("update", "\(number)"), ("update_before", "\(before)"), ("update_digest", "\(digest)")]
    }
}

/// The boot guard (R29): an update with which two starts in a row ended before the node was ready is set aside for the
/// state before it. What is counted stands in a file of its own, written before the state is looked at; who ends in
/// order, as for a port that is taken, does not count.
package struct BootMark: Equatable {
    /// In the store's directory.
    static let file = "boot"
    /// The starts that an update may end.
    static let most = 2
    /// So many updates are known as set aside.
    static let mostAside = 16
    /// Beyond that no more are counted.
    static let mostCounted = 1000

    /// Of the update that the starts began from.
    package var update: UInt64 = 0
    /// Starts that have begun and not come to their end.
    package var starts = 0
    /// What was set aside; nil: nothing, or another update came since.
    package var aside: SetAside?

    package init(update: UInt64 = 0, starts: Int = 0, aside: SetAside? = nil) {
        (self.update, self.starts, self.aside) = (update, starts, aside)
    }
}

/// An update that is not in force, because starts ended with it.
public struct SetAside: Equatable, Sendable {
    public let revision: UInt64?
    public let source: String
    public let actor: String
    /// Nanoseconds since 1970.
    public let at: UInt64
    /// Of what it and those that were set aside just before it said, the newest first.
    let digests: [UInt64]

    /// `revision 43 (push)`.
    public var name: String { "\(revision.map { "revision \($0)" } ?? "the update without a revision") from \(source)" }
}

extension BootMark {
    private static let head = "pipelined boot 1"

    /// A line for each: `update 7`.
    package var bytes: [UInt8] {
        var lines = [BootMark.head, "update \(update)", "starts \(starts)"]
        if let aside {
            lines += [
                "aside_revision \(aside.revision.map(String.init) ?? "")", "aside_source \(aside.source)",
                "aside_actor \(aside.actor)", "aside_at \(aside.at)",
                "aside_digests \(aside.digests.map(String.init).joined(separator: " "))",
            ]
        }
        return lines.flatMap { $0.utf8.map { $0 == 0x0A ? 0x20 : $0 } + [0x0A] }
    }

    /// Nil: they are none. A start that can't be counted is as good as none.
    package init?(_ bytes: [UInt8]) {
        guard bytes.last == 0x0A else { return nil }
        let lines = bytes.split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
        guard lines.first == BootMark.head else { return nil }
        var values: [String: String] = [:]
        for line in lines.dropFirst() {
            guard let space = line.firstIndex(of: " ") else { return nil }
            values[String(line[..<space])] = String(line[line.index(after: space)...])
        }
        guard let update = values["update"].flatMap({ UInt64($0) }), let starts = values["starts"].flatMap({ Int($0) }),
            (0...BootMark.mostCounted).contains(starts)
        else { return nil }
        self.init(update: update, starts: starts)
        guard let source = values["aside_source"] else { return }
        guard let revision = values["aside_revision"], revision.isEmpty || UInt64(revision) != nil,
            let at = values["aside_at"].flatMap({ UInt64($0) }),
            let words = values["aside_digests"]?.split(separator: " "), words.count <= BootMark.mostAside
        else { return nil }
        let digests = words.compactMap { UInt64($0) }
        guard digests.count == words.count else { return nil }
        aside = SetAside(
            revision: UInt64(revision), source: source, actor: values["aside_actor"] ?? "", at: at, digests: digests)
    }
}

extension StateUpdate {
    /// The same for the same objects.
    package var digest: UInt64 {
        let seed = HashSeed(0x7069_7065, 0x6C69_6E65)
        var sum: UInt64 = form == .document ? 1 : 2
        func add(_ bytes: UnsafeRawBufferPointer) {
            let hash = bytes.withMemoryRebound(to: UInt8.self) { SipHash.hash($0, seed: seed) }
            sum = (sum &* 0x9E37_79B9_7F4A_7C15) ^ hash
        }
        forEachPut { _, id, text in
            add(UnsafeRawBufferPointer(id))
            add(text)
        }
        for (_, id) in deletes { id.withUnsafeBytes(add) }
        return sum
    }
}

// MARK: A start

extension LastGood {
    /// Opens it for a node that starts: what two starts in a row ended with is set aside. The start counts from here on,
    /// until ``startIsReady()`` or ``startEndedInOrder()``.
    public static func openForStart(
        _ directory: String, now: UInt64, waiting: ((_ process: Int32?) -> Bool)? = nil
    ) throws(StateFault) -> (state: LastGood, notices: [StateNotice]) {
        let (kept, opening) = try open(directory, waiting: waiting)
        var notices = opening
        if let before = try kept.goesBack(now) {
            try kept.goBack(to: before, now)
            notices.append(
                StateNotice(
                    "state_rolled_back",
                    "\(directory): \(kept.setAside?.name ?? "the last update") is set aside, since \(BootMark.most) starts in "
                        + "a row ended with it before they were ready; the state before it is used, but whom it "
                        + "suspended stays suspended, and its addresses wait for their cooldown"))
        }
        kept.begin(&notices)
        return (kept, notices)
    }

    private func goBack(to before: UInt64, _ now: UInt64) throws(StateFault) {
        let earlier = try StateStore.look(at: directory, endingAt: before, seed: LastGood.secret).store
        try Rollback(of: store, to: earlier, now: now).write()
        last = Facts.read(store)
        position = Facts.position(store)
    }

    /// Where the state before the last update ends, if that is to be used; nil: this one is.
    private func goesBack(_ now: UInt64) throws(StateFault) -> UInt64? {
        guard mark.starts >= BootMark.most, mark.update == position.number, position.number > 0 else { return nil }
        // Before it is done: a start that ends in the middle of it does it again, and knows what it was.
        mark.aside = asideNow(now)
        try write()
        return position.before
    }

    private func asideNow(_ now: UInt64) -> SetAside {
        SetAside(
            revision: last?.revision, source: last?.source ?? "", actor: last?.actor ?? "", at: now,
            digests: Array(([position.digest] + (mark.aside?.digests ?? [])).prefix(BootMark.mostAside)))
    }

    private func begin(_ notices: inout [StateNotice]) {
        startsBefore = mark.update == position.number ? mark.starts : 0
        (mark.update, mark.starts, isStarting) = (position.number, min(startsBefore + 1, BootMark.mostCounted), true)
        do throws(StateFault) { try write() } catch {
            notices.append(StateNotice("boot_guard_off", "this start is not counted: \(error.message)"))
        }
    }

    /// What is set aside; nil: nothing is.
    public var setAside: SetAside? { mark.aside }

    /// The node serves.
    public func startIsReady() { end(starts: 0) }
    /// It did not start, for a reason that is not the state.
    public func startEndedInOrder() { end(starts: startsBefore) }

    private func end(starts: Int) {
        guard isStarting else { return }
        isStarting = false
        mark.starts = starts
        if starts == 0, mark.aside == nil { return store.removeMark(BootMark.file) }
        do throws(StateFault) { try write() } catch { fault = error }
    }

    /// An update that changes objects was kept, and is about to be applied.
    func noteUpdate() {
        guard isStarting || mark.aside != nil else { return }
        mark.aside = nil
        if isStarting { (mark.update, mark.starts, startsBefore) = (position.number, 1, 0) }
        if !isStarting { return store.removeMark(BootMark.file) }
        do throws(StateFault) { try write() } catch { fault = error }
    }

    private func write() throws(StateFault) { try store.writeMark(BootMark.file, mark.bytes) }

    /// Why an update may not come again; nil: it may.
    func refusal(ofSetAside update: StateUpdate) -> UpdateRefusal? {
        guard let aside = mark.aside, aside.digests.contains(update.digest) else { return nil }
        return UpdateRefusal(
            "it is what was set aside, since \(BootMark.most) starts in a row ended with it before they were ready",
            remedy: "change it, or confirm it (`--confirm`)", isHeld: true)
    }
}
