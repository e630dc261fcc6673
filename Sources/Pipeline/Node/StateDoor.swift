import CLinux
import Pipeline
import PipelineJournal

/// A document or a change on its way into the node, in memory that costs nothing until it is filled.
///
/// Threading: filled by the control thread; once it is whole, any thread may read.
package final class StateUpload: @unchecked Sendable {
    /// The longest, in bytes.
    package static let longest = 256 << 20

    /// How many bytes were announced.
    package let length: Int
    /// How many have come.
    package private(set) var count = 0
    /// It is on its way, or is being applied. False: it waits until an operator decides.
    package internal(set) var isPending = true
    private let memory: UnsafeMutableRawPointer

    /// Nil: there is no memory for as much.
    package init?(length: Int) {
        guard (1...StateUpload.longest).contains(length), let memory = cl_map(length) else { return nil }
        self.length = length
        self.memory = memory
    }

    deinit { cl_unmap(memory, length) }

    package var isWhole: Bool { count == length }

    /// What has come, valid as long as this object.
    package var bytes: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(start: memory.assumingMemoryBound(to: UInt8.self), count: count)
    }

    /// Appends as much as there is room for.
    package func append(_ more: UnsafeRawBufferPointer) {
        let taken = min(more.count, length - count)
        guard taken > 0, let start = more.baseAddress else { return }
        memory.advanced(by: count).copyMemory(from: start, byteCount: taken)
        count += taken
    }

    /// - Parameter read: fills the room that is left from its start, and says how much of it.
    /// - Returns: what `read` returned.
    package func fill(_ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        let room = UnsafeMutableRawBufferPointer(start: memory.advanced(by: count), count: length - count)
        let done = read(room)
        if done > 0 { count += min(done, room.count) }
        return done
    }
}

/// Who pushes, and what was said of it.
package struct StatePush: Sendable, Equatable {
    /// Who asks, as the kernel knows it.
    package let peer: JournalEntry.Peer?
    /// A lower revision than the applied one is meant.
    package let isOlder: Bool

    package init(peer: JournalEntry.Peer?, isOlder: Bool) {
        self.peer = peer
        self.isOlder = isOlder
    }
}

/// Why the node takes or gives no desired state.
package struct StateRefusal: Error, Sendable, Equatable {
    package let problem: String
    package let remedy: String

    package init(_ problem: String, remedy: String) {
        self.problem = problem
        self.remedy = remedy
    }
}

/// What became of a push.
package struct ApplyAnswer: Sendable, Equatable {
    package enum Outcome: Sendable, Equatable {
        /// All of it is in force.
        case applied
        /// It is in force, but for some objects.
        case quarantined
        /// It waits to be confirmed under this id, or behind what does.
        case held(id: String)
        /// What was held comes to nothing.
        case discarded
        /// The disk takes nothing: what takes away is in force, and nothing else.
        case partly(isDurable: Bool)
        /// Nothing was changed.
        case refused
    }

    package static let exitHeld: Int32 = 4
    package static let exitQuarantined: Int32 = 5
    package static let exitPartly: Int32 = 6
    /// The most ``details`` that are shown; the rest are counted.
    package static let shownDetails = 100

    package let outcome: Outcome
    /// What is applied now; nil: nothing with a revision.
    package let revision: UInt64?
    /// A sentence: what was accepted, or why it was not.
    package let message: String
    /// Each object that is quarantined, and why.
    package let details: [String]

    package init(_ outcome: Outcome, revision: UInt64?, message: String, details: [String] = []) {
        self.outcome = outcome
        self.revision = revision
        self.message = message
        self.details = details
    }
}

/// What gives a document a piece at a time.
package protocol StatePieces: AnyObject {
    /// The next piece, made in at most a few milliseconds; empty: it is over. The document's last byte is a line break,
    /// and no earlier piece ends in one.
    /// - Throws: it can't go on; what was given so far is no document.
    func next() throws(StateRefusal) -> [UInt8]
}

/// Takes desired state that is pushed to the node, and gives what is in force.
///
/// Threading: the control thread. No call blocks; what takes longer goes on behind it, and is answered later.
package protocol StateDoor: AnyObject {
    /// Why nothing may be pushed, whatever it is; nil: it may.
    var pushRefusal: StateRefusal? { get }
    /// - Parameter answer: called once, on the control thread, when the change is durable and in force, or is not.
    func apply(_ upload: StateUpload, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void)
    /// Applies what was held under `id`.
    func confirm(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void)
    /// Drops what was held under `id`.
    func discard(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void)
    /// What is in force, as a document.
    func export() throws(StateRefusal) -> any StatePieces
}

/// A node that takes its routes from files alone, and keeps nothing.
final class StateOfFiles: StateDoor {
    private let source: String
    private let remedy: String
    private let fault: String?

    /// - Parameter fault: of its state directory; nil: it has none.
    init(_ stateFile: String?, config: String, fault: String? = nil, isWatched: Bool = false) {
        source = stateFile ?? "its config file, \(config)"
        remedy = StateOfFiles.remedy(isWatched: isWatched)
        self.fault = fault
    }

    static func remedy(isWatched: Bool) -> String {
        isWatched ? "change that file, which is watched" : "change that file, and run `pipelined reload`"
    }

    var pushRefusal: StateRefusal? {
        if let fault { return StateRefusal("its state can't be kept: \(fault)", remedy: "then start it again") }
        return StateRefusal("the routes of this node come from \(source)", remedy: remedy)
    }

    func apply(_: StateUpload, _: StatePush, answer: @escaping (ApplyAnswer) -> Void) { refuse(answer) }
    func confirm(_: String, _: StatePush, answer: @escaping (ApplyAnswer) -> Void) { refuse(answer) }
    func discard(_: String, _: StatePush, answer: @escaping (ApplyAnswer) -> Void) { refuse(answer) }

    private func refuse(_ answer: (ApplyAnswer) -> Void) {
        answer(ApplyAnswer(.refused, revision: nil, message: "the routes of this node come from \(source); \(remedy)"))
    }

    func export() throws(StateRefusal) -> any StatePieces {
        throw StateRefusal("this node keeps no desired state: its routes come from \(source)", remedy: "read that file")
    }
}
