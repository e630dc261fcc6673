import TestSupport

/// Which envs had an address one after the other, and what is certain about it: an address that another env certainly had
/// less than a cooldown ago must not answer for the one that asks for it now (R31).
struct TenantCooldowns {
    /// Revisions in a row in which one env asks for the address.
    private struct Run {
        let env: Int
        let revisions: ClosedRange<Int>
        /// The env certainly had it at some time.
        var isCertain = false
    }

    private let entries: [TenantTimeline.Entry]
    private let cooldown: UInt64
    private var addresses: [[Run]] = []
    private var dedicated: [[Run]] = []

    /// What a late machine takes to serve what it may serve.
    private static let slack: UInt64 = 5_000_000_000

    init(_ entries: [TenantTimeline.Entry], _ cooldown: UInt64) {
        (self.entries, self.cooldown) = (entries, cooldown)
        guard let first = entries.first?.model else { return }
        addresses = first.addresses.indices.map { address in
            runs { $0.holders[address].flatMap { $0.status == "ready" ? $0.env : nil } }
        }
        dedicated = first.dedicated.indices.map { own in runs { $0.dedicated[own] } }
    }

    private func runs(_ owner: (TenantModel) -> Int?) -> [Run] {
        var runs: [Run] = []
        for (revision, entry) in entries.enumerated() {
            guard let env = owner(entry.model) else { continue }
            if let last = runs.last, last.env == env, last.revisions.upperBound == revision - 1 {
                runs[runs.count - 1] = Run(env: env, revisions: last.revisions.lowerBound...revision)
            } else {
                runs.append(Run(env: env, revisions: revision...revision))
            }
        }
        for index in runs.indices { runs[index].isCertain = isCertain(runs[index], index > 0 ? runs[index - 1] : nil) }
        return runs
    }

    /// - Parameter before: the run before; nil: there is none, so nothing kept the env from having it.
    private func isCertain(_ run: Run, _ before: Run?) -> Bool {
        guard let since = entries[run.revisions.lowerBound].acknowledged else { return false }
        guard let before else { return true }
        if before.isCertain, before.env == run.env { return true }
        return end(run) > since + cooldown + Self.slack
    }

    /// No later than when the env lost it; a run that has not ended is not over.
    private func end(_ run: Run) -> UInt64 {
        let next = run.revisions.upperBound + 1
        return next < entries.count ? entries[next].begun : .max - cooldown - Self.slack
    }

    /// Why it must not answer at that revision; nil: it may.
    func problem(_ address: Int, _ own: Int?, at revision: Int, answered: UInt64) -> String? {
        if let early = early(addresses[address], revision, answered) { return "the address \(early)" }
        return own.flatMap { early(dedicated[$0], revision, answered) }.map { "the dedicated address \($0)" }
    }

    private func early(_ runs: [Run], _ revision: Int, _ answered: UInt64) -> String? {
        guard let now = runs.lastIndex(where: { $0.revisions.contains(revision) }) else { return nil }
        for run in runs[..<now].reversed() {
            // All before are longer ago.
            guard answered < end(run) + cooldown else { return nil }
            // It may have been its own all the time.
            if run.env == runs[now].env { return nil }
            if run.isCertain {
                let ago = (answered - min(answered, end(run))) / 1_000_000
                return
                    "was e\(run.env)'s until revision \(run.revisions.upperBound + 2), \(ago) ms ago, and answers e\(runs[now].env)'s client"
            }
        }
        return nil
    }
}
