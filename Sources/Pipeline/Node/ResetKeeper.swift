import Pipeline
import PipelineHealth
import PipelineRuntime

/// What the prober wants ended, until it is published.
///
/// Threading: the control thread.
struct ResetKeeper {
    private var last: UInt64 = 0
    private var due: [BackendReset] = []

    /// The next update must have them.
    var isDue: Bool { !due.isEmpty }

    mutating func add(_ wanted: [WantedReset]) {
        for reset in wanted {
            last += 1
            due.append(BackendReset(reset.cell, reason: reset.reason, number: last))
        }
    }

    /// Those for the update that is published now. No later one needs them: it is published once every worker has
    /// applied this one.
    mutating func take() -> [BackendReset] {
        defer { due = [] }
        return due
    }
}
