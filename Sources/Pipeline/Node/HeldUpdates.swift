import Pipeline
import PipelineLastGood
import PipelineRouting

/// Pushes that wait for an operator (R29): one that a guard holds, and those that came behind it, in their order. Nothing
/// of them is in force but what takes away. They live as long as the node.
///
/// Threading: the control thread.
package struct HeldUpdates {
    /// So many wait behind the one that is held; more are refused.
    package static let mostWaiting = 1000
    package static let mostBytes = 64 << 20

    /// One of them.
    struct Item {
        let upload: StateUpload
        let push: StatePush
        let update: StateUpdate
        /// Objects that are in no update, since nobody can tell which they are.
        let unread: RouteProblems
        let taking: TakingAway
        /// Of its objects.
        let digest: UInt64

        init(
            upload: StateUpload, push: StatePush, update: StateUpdate, unread: RouteProblems, taking: TakingAway
        ) {
            (self.upload, self.push, self.update, self.unread) = (upload, push, update, unread)
            self.taking = taking
            digest = update.digest
        }

        init(_ push: PushedUpdate, _ update: StateUpdate, _ unread: RouteProblems, _ taking: TakingAway) {
            self.init(upload: push.upload, push: push.push, update: update, unread: unread, taking: taking)
        }
    }

    /// The one that is held.
    package struct Head: Equatable {
        package let id: String
        package let why: String
        /// Nanoseconds since 1970.
        package let since: UInt64
        /// False: what comes behind it goes on, in place of it.
        let stopsStream: Bool
    }

    /// Where a push waits.
    struct Place: Equatable {
        /// The one that is held, before it.
        let head: Head
        /// It is the one that came last, sent again.
        let isKnown: Bool
        /// How many objects of it are taken away from somebody already.
        let takenAway: Int
        /// How many wait, with it.
        let waiting: Int

        var message: String {
            let taken =
                takenAway == 0
                ? ""
                : "; what it takes away is in force: \(takenAway) objects are not ready any more, or suspended"
            return "it \(isKnown ? "waits already" : "waits") behind \(head.id), which is held: \(head.why)\(taken); "
                + "\(waiting) wait; \(head.remedy)"
        }
        var refusal: UpdateRefusal { UpdateRefusal("it waits behind \(head.id)", remedy: "", isHeld: true) }
    }

    /// Nil: nothing is held; what there is left is taken one after the other.
    package private(set) var head: Head?
    private var items: [Item] = []
    /// Of what waits: how much of it is in force since the operator has decided, and what was refused.
    private var released = Released()
    /// When the next one is taken.
    private(set) var due: Instant?

    struct Released: Equatable {
        var taken = 0
        var refused = 0
        /// Why the first of them was.
        var why: String?
    }

    package init() {}

    package var isEmpty: Bool { items.isEmpty }
    var isReleasing: Bool { head == nil && !items.isEmpty }
    /// What comes has to wait.
    var stopsStream: Bool { isReleasing || head?.stopsStream ?? false }
    /// Behind the one that is held.
    package var waiting: Int { items.count - (head == nil ? 0 : 1) }
    package var waitingBytes: Int { items.dropFirst(head == nil ? 0 : 1).reduce(0) { $0 + $1.upload.count } }

    var first: Item? { items.first }

    // MARK: What comes

    mutating func hold(_ item: Item, _ head: Head) {
        item.upload.isPending = false
        (items, self.head, due) = ([item], head, nil)
    }

    /// Those that waited could not be taken a moment ago.
    var releasing: UpdateRefusal {
        UpdateRefusal(
            "\(waiting) updates that waited are being applied", remedy: "try again in a moment", isPassing: true)
    }

    /// Nothing is held under this id.
    func refusal(ofUnknown id: String) -> UpdateRefusal {
        let known = head.map { "what is held is \($0.id)" } ?? "nothing is held"
        return UpdateRefusal(
            "\(known): \(id) is not; it may have been applied, or discarded", remedy: "see `pipelined status`")
    }

    /// Why one may not wait behind the others; nil: it may.
    /// - Parameter last: what is in force.
    func refusal(of item: Item, behind last: LastUpdate?, _ source: String) -> UpdateRefusal? {
        guard let head else { return releasing }
        guard waiting < HeldUpdates.mostWaiting, waitingBytes + item.upload.count <= HeldUpdates.mostBytes else {
            return UpdateRefusal(
                "\(waiting) updates, \(waitingBytes >> 10) KiB, wait behind \(head.id), and no more may",
                remedy: "have that decided: \(head.remedy)", isPassing: true)
        }
        var before = last
        for item in items { before = LastUpdate.after(before, item.update, from: source, at: 0) }
        let options = UpdateOptions(allowsOlder: item.push.isOlder)
        guard let refusal = before?.refusal(of: item.update, from: source, options) else { return nil }
        return UpdateRefusal("behind \(head.id) and what waits: \(refusal.problem)", remedy: refusal.remedy)
    }

    /// It is the one that came last, sent again.
    func isLast(_ item: Item) -> Bool {
        guard let last = items.last else { return false }
        return last.update.revision == item.update.revision && last.digest == item.digest
    }

    mutating func append(_ item: Item) {
        item.upload.isPending = false
        items.append(item)
    }

    // MARK: What goes

    /// The first, as it may be applied: what later ones take away stays taken.
    func firstToApply(seed: HashSeed) -> StateUpdate? {
        guard let first = items.first else { return nil }
        var later = TakingAway()
        for item in items.dropFirst() { later.add(item.taking) }
        return later.amending(first.update, seed: seed)
    }

    /// The first is in force, or dropped: the others follow.
    mutating func removeFirst(_ now: Instant) {
        guard !items.isEmpty else { return }
        items.removeFirst()
        if head != nil { released = Released() }
        (head, due) = (nil, items.isEmpty ? nil : now)
    }

    /// The first of those that follow was taken, or is refused for good.
    mutating func took(_ now: Instant, refused why: String? = nil) {
        removeFirst(now)
        if let why {
            released.refused += 1
            released.why = released.why ?? why
        } else {
            released.taken += 1
        }
    }

    func isReleaseDue(_ now: Instant) -> Bool { isReleasing && due.map { $0 <= now } ?? false }

    /// What follows can't be taken now.
    mutating func pauseRelease(until time: Instant) { if isReleasing { due = time } }

    /// A guard holds the first of those that follow.
    mutating func hold(_ head: Head) { (self.head, due) = (head, nil) }

    /// What became of those that followed, once.
    mutating func takeReleased() -> Released? {
        guard released != Released() else { return nil }
        defer { released = Released() }
        return released
    }

    mutating func removeAll() { self = HeldUpdates() }
}

extension HeldUpdates.Head {
    package var remedy: String { "`pipelined apply --confirm \(id)` applies it, `--discard \(id)` drops it" }
}

/// A routes file that a guard holds, and what it said since.
package struct HeldFile: Equatable {
    /// Nanoseconds since 1970.
    package let since: UInt64
    package internal(set) var documents = 1
}
