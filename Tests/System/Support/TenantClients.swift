import Foundation
import Pipeline
import Synchronization
import TestSupport

/// Clients of every kind, one after the other, and whom they ask: backends that say the address that was connected to.
final class TenantClients: Sendable {
    private let first: TenantModel
    private let timeline: TenantTimeline
    /// So far.
    private let come = Atomic<Int>(0)
    /// Nobody may listen.
    private let mayBeDead: Bool
    /// They do what a node would look like that looks up too early: the hello comes with the accept, and counts from later.
    private let decidesEarly: Bool

    var count: Int { come.load(ordering: .relaxed) }

    init(_ first: TenantModel, _ timeline: TenantTimeline, mayBeDead: Bool = false, decidesEarly: Bool = false) {
        (self.first, self.timeline) = (first, timeline)
        (self.mayBeDead, self.decidesEarly) = (mayBeDead, decidesEarly)
    }

    /// Addresses that answer, drop or refuse, all of this namespace.
    static func prepare(_ namespace: Namespace) throws {
        try namespace.ip("-6 route add local \(TenantModel.network) dev lo")
        for address in TenantModel.dedicatedAddresses { try namespace.ip("addr add \(address)/32 dev lo") }
        try namespace.nft(
            "add table inet t; add chain inet t c { type filter hook input priority 0; }; "
                + "add rule inet t c ip6 daddr \(TenantModel.darkNetwork) drop; "
                + "add rule inet t c ip6 daddr \(TenantModel.refusingNetwork) meta l4proto tcp reject with tcp reset")
    }

    /// Says the address that was connected to, on every connection to the port.
    static func serve(_ port: UInt16, _ stopped: Flag) throws {
        let listener = try Socket.listen(at: Place("::", port))
        Thread.detachNewThread {
            while let taken = listener.accept(until: stopped) {
                Thread.detachNewThread {
                    try? taken.send(taken.local.host)
                    taken.finish()
                    _ = try? taken.receiveToEnd(Deadline(seconds: 30))
                }
            }
        }
    }

    func visitUntil(_ stop: Flag, _ way: TenantVisit.Way, seed: UInt64, of name: String) throws -> [TenantVisit] {
        var random = SplitMix64(seed: name.utf8.reduce(seed) { $0 &* 31 &+ UInt64($1) })
        var visits: [TenantVisit] = []
        while !stop.isSet {
            let (move, deaths) = (timeline.count, timeline.deaths.count)
            if let visit = try visit(way, &random) {
                visits.append(visit)
                come.add(1, ordering: .relaxed)
            } else {
                try awaitUntil("another move, or a node that is there again") {
                    stop.isSet || timeline.count > move || timeline.deaths.count > deaths
                }
            }
        }
        return visits
    }

    private func visit(_ way: TenantVisit.Way, _ random: inout SplitMix64) throws -> TenantVisit? {
        let wanted = first.targets.indices.filter { index in
            let target = first.targets[index]
            switch way {
            case .raw: return target.name == nil
            case .late: return target.name != nil && target.kind == .dark
            default: return target.name != nil
            }
        }
        let index = try wanted.randomElement(using: &random).unwrap("target")
        let target = first.targets[index]
        let own = way == .dedicated ? Int.random(in: 0..<TenantModel.dedicatedAddresses.count, using: &random) : nil
        let entry = Place(own.map { TenantModel.dedicatedAddresses[$0] } ?? "::1", target.port)
        let came = Deadline.now()
        var asked = came
        // An address of an env without a name is nobody's to listen at, until it has one.
        let isFine = own == nil && !mayBeDead
        guard let client = isFine ? try Socket.connect(to: entry) : try? Socket.connect(to: entry) else { return nil }
        guard let place = isFine ? try client.local : try? client.local else { return nil }
        if way == .idle {
            _ = client.becomesReadable(Deadline(patience: .random(in: 1...5, using: &random)))
            client.finish()
        } else if let name = target.name {
            let hello = clientHello(name)
            // All but the last byte at most, so that nothing is known before it comes.
            let isEarly = decidesEarly && [.slow, .dedicated, .silent].contains(way)
            let early =
                switch way {
                case _ where isEarly: hello.count
                case .slow, .dedicated: Int.random(in: 1..<hello.count, using: &random)
                default: 0
                }
            try? client.send(Array(hello[..<early]))
            let patience: ClosedRange<Double> =
                switch way {
                case .slow, .dedicated: 0.05...1.5
                case .silent: 0.5...3
                default: 0...0.02
                }
            // One that is closed has nothing to wait for.
            if isEarly {
                let moves = timeline.count + 2
                _ = try? awaitUntil("two moves", Deadline(patience: 5)) { timeline.count >= moves }
            } else {
                _ = client.becomesReadable(Deadline(patience: .random(in: patience, using: &random)))
            }
            asked = Deadline.now()
            // One that was closed meanwhile takes no more.
            try? client.send(Array(hello[early...]))
        }
        let said = try client.receiveToEnd()
        let answered = Deadline.now()
        client.finish()
        let by = String(decoding: said.bytes, as: UTF8.self)
        return TenantVisit(
            way: way, target: index, own: own, place: place, came: came, asked: asked, answered: answered,
            by: by.isEmpty ? nil : by
        )
    }
}
