import PipelineRouting

/// Why an update changes nothing.
public struct UpdateRefusal: Error, Equatable, Sendable {
    /// What is wrong, without its full stop.
    public let problem: String
    /// What to do, in the imperative.
    public let remedy: String
    /// A guard holds it: it is applied once it is confirmed (R29).
    public let isHeld: Bool
    /// The node can't take it now, whatever it says: the same may be taken later.
    public let isPassing: Bool
    /// Held, and what comes behind it waits.
    public let stopsStream: Bool

    public init(
        _ problem: String, remedy: String, isHeld: Bool = false, isPassing: Bool = false, stopsStream: Bool = false
    ) {
        self.stopsStream = stopsStream
        self.problem = problem
        self.remedy = remedy
        self.isHeld = isHeld
        self.isPassing = isPassing
    }
}

/// How an update may be taken.
public struct UpdateOptions: Sendable {
    /// The operator has confirmed it, for guards (R29).
    public var isConfirmed = false
    /// A lower revision than the last one's is meant.
    public var allowsOlder = false

    public init(isConfirmed: Bool = false, allowsOlder: Bool = false) {
        self.isConfirmed = isConfirmed
        self.allowsOlder = allowsOlder
    }
}

/// The last update that was applied.
public struct LastUpdate: Equatable, Sendable {
    /// `file /etc/pipelined/routes.json`, `push`: revisions are compared within one source.
    public var source: String
    /// Nil: it had none.
    public var revision: UInt64?
    public var actor: String
    /// Nanoseconds since 1970.
    public var at: UInt64

    public init(source: String, revision: UInt64?, actor: String, at: UInt64) {
        self.source = source
        self.revision = revision
        self.actor = actor
        self.at = at
    }

    /// What is the last once an update is kept.
    package static func after(
        _ last: LastUpdate?, _ update: StateUpdate, from source: String, at now: UInt64
    ) -> LastUpdate {
        LastUpdate(
            source: source, revision: update.revision ?? (update.form == .document ? nil : last?.revision),
            actor: update.actor, at: now)
    }

    /// Why an update may not follow this one; nil: it may.
    package func refusal(of update: StateUpdate, from source: String, _ options: UpdateOptions) -> UpdateRefusal? {
        if case .change(let base?) = update.form, base != revision {
            let known = revision.map { "revision \($0)" } ?? "a state without a revision"
            return UpdateRefusal(
                "the change stands on revision \(base), but \(known) is applied",
                remedy: "make it anew from what is applied (`pipelined state export`)")
        }
        guard source == self.source, let known = revision, let new = update.revision, new < known,
            !options.allowsOlder, !options.isConfirmed
        else { return nil }
        return UpdateRefusal(
            "it has revision \(new), but \(known) is applied from the same source",
            remedy: "raise the revision, or say that the older one is meant (`--older`)")
    }
}
