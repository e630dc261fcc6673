import Foundation
import Glibc
import Synchronization
import TestSupport
import Testing

/// Instances that connect without a pause, to servers of both families, and what those servers see of whom.
private final class AwayLoad: Sendable {
    private let isOver = Flag()
    private let attempts = Atomic<Int>(0)
    private let served = Atomic<Int>(0)
    private let strangers = Mutex<[String]>([])
    private let ends: Mutex<[Promise<Void>]>

    var tried: Int { attempts.load(ordering: .relaxed) }
    var relayed: Int { served.load(ordering: .relaxed) }
    /// Who reached a server in another name than the node's.
    var around: [String] { strangers.withLock { $0 } }

    static let port: UInt16 = 8095

    init(_ lab: EgressLab, node: [String], servers: [String]) throws {
        ends = Mutex([])
        for host in servers {
            let listener = try lab.inside(lab.server) {
                try Socket.listen(at: Place(host, AwayLoad.port), backlog: 256)
            }
            run { [self] in
                while let taken = listener.accept(until: isOver) {
                    guard let peer = try? taken.peer.host else { continue }
                    if !node.contains(peer) { strangers.withLock { $0.append(peer) } }
                    served.add(1, ordering: .relaxed)
                    try? taken.send("x")
                }
            }
            for client in [lab.alpha, lab.beta] {
                let place = Place(host, AwayLoad.port)
                run { [self] in
                    try lab.inside(client) { [self] in
                        while !isOver.isSet {
                            attempts.add(1, ordering: .relaxed)
                            guard let socket = try? Socket.connect(to: place, Deadline(patience: 1)) else { continue }
                            _ = try? socket.receiveToEnd(Deadline(patience: 0.2))
                        }
                    }
                }
            }
        }
    }

    private func run(_ body: @escaping @Sendable () throws -> Void) {
        let promise = concurrently(body)
        ends.withLock { $0.append(promise) }
    }

    func end() throws {
        isOver.set()
        for promise in ends.withLock({ $0 }) { try promise.value(Deadline(), "the end of the load") }
    }
}

/// R19: a node that is killed at any moment leaves no way out.
@Suite("An egress node that is killed", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressAwayTests {
    /// `EGRESS_KILLS=20`: so many in each mode.
    private static let kills = ProcessInfo.processInfo.environment["EGRESS_KILLS"].flatMap { Int($0) } ?? 5

    @Test(
        "under load, at any moment: no instance reaches a server but through it, in both families",
        arguments: ["transparent", "redirect"])
    func killed(_ mode: String) throws {
        let lab = try EgressLab()
        try lab.forward()
        let load = try AwayLoad(
            lab, node: ["2001:db8:9::1", "198.51.100.1"], servers: ["2001:db8:9::2", "198.51.100.2"])
        // Without rules they do get around it: the load sees what it is there for.
        try awaitUntil("somebody goes around") { !load.around.isEmpty }
        var node = try lab.startNode(mode: mode)
        // What was on its way when the rules came has ended by then.
        let begun = load.relayed
        try awaitUntil("what began before has ended") { load.relayed > begun + 50 }
        let before = load.around.count
        for round in 0..<Self.kills {
            // Anywhere in what the node does for them.
            let served = load.relayed + 20 + (round * 7919) % 50
            try awaitUntil("connections are relayed") { load.relayed > served }
            node.child.signal(SIGKILL)
            _ = try node.child.waitForExit()
            let tried = load.tried
            try awaitUntil("instances try while it is away") { load.tried > tried + 50 }
            node = try Node(try String(contentsOfFile: node.config, encoding: .utf8), folder: lab.folder, in: lab.node)
        }
        try load.end()
        #expect(load.around.count == before, "\(load.around.suffix(3))")
        print(
            "\(mode): \(Self.kills) kills, \(load.tried) attempts, \(load.relayed) served, \(before) before the rules")
    }
}
