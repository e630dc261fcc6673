import CLinux
import Pipeline
import PipelineFlows
import PipelineLedger

/// Aggregates the flows of a window for a ``TopReport``, in batches.
package struct TopTally {
    typealias Entry = (group: TopReport.Group, sums: TrafficWindow.Sums)

    let question: TopQuestion
    let view: TrafficWindow.View
    private(set) var owners: TopOwners
    private(set) var found: [TopReport.Group: TrafficWindow.Sums] = [:]
    private(set) var total = TrafficWindow.Sums()
    private var next = 0

    init(_ question: TopQuestion, _ view: TrafficWindow.View) {
        (self.question, self.view) = (question, view)
        owners = TopOwners(question)
    }

    /// Takes one of the window's buckets after the other, until about that instant. True: all of them.
    package mutating func advance(until end: Instant, _ names: (UInt32, IPAddress) -> FlowNames) -> Bool {
        while next < view.buckets.count {
            for (key, sums) in view.buckets[next] where question.fits(key) {
                guard let owner = owners.find(key, names) else { continue }
                total.add(sums)
                found[TopReport.Group(question.by, key, owner), default: TrafficWindow.Sums()].add(sums)
            }
            next += 1
            if Instant(nanoseconds: cl_now()) >= end { break }
        }
        return next == view.buckets.count
    }

    /// The rows that are shown, most first: without sorting the others.
    var top: [Entry] {
        var largest = LargestOf<Entry>(question.rows, by: isBefore)
        for (group, sums) in found { largest.add((group, sums)) }
        return largest.sorted
    }

    private func isBefore(_ a: Entry, _ b: Entry) -> Bool {
        let (first, second) = (order(a.sums), order(b.sums))
        return first == second ? owners.isLess(a.group, b.group) : first > second
    }

    private func order(_ sums: TrafficWindow.Sums) -> (UInt64, UInt64) {
        question.order == .bytes ? (sums.bytes, sums.connections) : (sums.connections, sums.bytes)
    }
}

/// Instances, envs or orgs of a report, each once, looked up once.
struct TopOwners {
    private struct Source: Hashable {
        let instance: UInt32
        /// The number for "no instance" stands for many sources, each with its own address.
        let address: IPAddress
    }

    private let question: TopQuestion
    /// -1: no flow of it fits.
    private var known: [Source: Int] = [:]
    private var places: [FlowNames: Int] = [:]
    private(set) var rows: [TopReport.Row] = []
    /// Whose flows fit a question about one env.
    private(set) var envs: Set<EnvName> = []

    init(_ question: TopQuestion) { self.question = question }

    /// Index into ``rows``; nil: the question is not about this one.
    mutating func find(_ key: FlowKey, _ names: (UInt32, IPAddress) -> FlowNames) -> Int? {
        let isKnown = key.instance != InstanceIdentity.unknown
        let source = Source(instance: key.instance, address: isKnown ? .unspecified : key.source)
        if let place = known[source] { return place >= 0 ? place : nil }
        let who = names(key.instance, key.source)
        guard question.fits(who) else {
            known[source] = -1
            return nil
        }
        if question.isOfOneEnv { envs.insert(who.owner) }
        let row = TopOwners.row(question.by, who)
        let key = FlowNames(instance: row.name, env: row.env, app: row.app, org: row.org)
        let place = places[key] ?? rows.count
        if place == rows.count { rows.append(row) }
        (places[key], known[source]) = (place, place)
        return place
    }

    private static func row(_ group: ReportGroup, _ names: FlowNames) -> TopReport.Row {
        switch group {
        case .org: TopReport.Row(name: names.org)
        case .app: TopReport.Row(name: names.app, org: names.org)
        case .env: TopReport.Row(name: names.env, app: names.app, org: names.org)
        case .instance: TopReport.Row(name: names.instance, env: names.env, app: names.app, org: names.org)
        // Rows of these are no owner's: one is enough for all.
        case .destination, .port: TopReport.Row(name: "")
        }
    }

    /// The order of rows with the same figures: by name, or by number.
    func isLess(_ a: TopReport.Group, _ b: TopReport.Group) -> Bool {
        guard a.isOwner else { return (a.high, a.low) < (b.high, b.low) }
        let (a, b) = (rows[Int(a.low)], rows[Int(b.low)])
        return (a.name, a.env, a.org, a.app) < (b.name, b.env, b.org, b.app)
    }
}
