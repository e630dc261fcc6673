import Pipeline
import PipelineRuntime

/// One scripted connection, as the simulation watches it from outside.
final class Connection {
    enum State { case coming, queued, accepted, refused, aborted, dropped }
    enum Inspection { case none, open, over }

    let index: Int
    let plan: ConnectionPlan
    let client: Socket
    let clientPeer: Peer
    /// The socket of the last attempt.
    var upstream: Socket?
    var server: Peer?
    var state = State.coming
    var acceptedAt: UInt64 = 0
    var attempts = 0
    /// The candidate that is being tried, or that is connected; -1: none yet.
    var candidate = -1
    var connectDeadline: UInt64?
    /// There was something to write as soon as the backend accepts.
    var hadFirstBytes = false
    /// What the last failed attempt failed with.
    var connectError: Int32 = 0
    /// The addresses that the attempt under way has tried.
    var sources = SourceAttempt()
    /// Where its last connect came from; nil: from where the kernel chose.
    var source: IPAddress?
    var exhausted = false
    /// While the peeking stage waits.
    var peekDeadline: UInt64?
    var waits: Bool { isLive && peekDeadline != nil }
    /// Nothing of what its client said has been written to the backend.
    var isMute: Bool { (upstream?.sent ?? 0) <= preamble.count }
    var upgrade = UpgradeState()
    /// A stage has said who the client is.
    var isBelieved = false
    /// What its address counts for: that of its socket is in other networks than the one that is believed.
    var network: Int { plan.network + (isBelieved ? Connection.networks : 0) }
    static let networks = 5
    /// When a stage first said that it has to wait for a place; nil: none does.
    var queuedAt: UInt64?
    /// When it got its place, if it waited for one.
    var leftQueue: UInt64 = 0
    /// Its last stage has passed it.
    var isThrough = false
    /// In the order of accepts.
    var number = 0
    var inspection = Inspection.none
    /// The stage that goes by the client's address was asked.
    var isCounted = false
    var isRefusedByStage: ReasonCode?
    /// The program that its stages run on.
    var program: ProgramMark?
    /// Which route it has, and whose.
    var route: (cell: Int, owner: Int)?
    /// Whose it is; a number that no owner has, if that was never found out.
    var tenant: Int { route?.owner ?? -1 - index }
    /// What a node that looks up in the table of the accept would go by.
    var oldRoute: (route: FoundRoute, plan: TablePlan)?
    /// Candidates that it had to choose from, and those that it has tried.
    var choice: [Int] = []
    var tried: [Int] = []
    /// Stage numbers, as bits.
    var passed: UInt32 = 0
    var settled: UInt32 = 0
    var totals: (up: UInt64, down: UInt64)?
    /// What the accounts have of it.
    var accounted = Growth()
    var isSettledInAccounts = false
    var record: ConnectionRecord?
    var watchFailed = false
    /// The kernel had no memory for what the worker asked for it.
    var metShortage = false
    /// When the attempt that is under way began.
    var attemptedAt: UInt64 = 0
    /// How many first bytes a stage has kept for itself.
    var consumed = 0
    /// What stages have counted it in.
    var held: [Int] = []
    /// The rates that stages have set.
    var paced: [Int] = []
    /// When the backend took the first byte, and the worker had read enough of its answer to judge it.
    var firstWrite: UInt64?
    var firstAnswer: UInt64?
    /// From the first byte of that answer on the backend was known to reject headers; nil: no byte of it was read.
    var wasRejectedBefore: Bool?
    /// The stages were told of a backend that was connected.
    var wasConnected = false

    init(index: Int, plan: ConnectionPlan, random: inout SeededRandom) {
        self.index = index
        self.plan = plan
        client = Socket(
            .client, connection: index,
            receiveCapacity: Scenario.buffer(&random, bytes: plan.client.bytes),
            sendCapacity: Scenario.buffer(&random, bytes: plan.server.bytes))
        clientPeer = Peer(plan.client, client)
    }

    var isLive: Bool { state == .accepted && client.isOpen }

    /// The client's address carries the index, so that stages and records lead back here.
    var address: Endpoint {
        Endpoint(IPAddress(high: 0x2001_0DB8 << 32 | UInt64(plan.network), low: UInt64(index)), UInt16(10_000 + index))
    }

    /// Where others connect to as well, of this tenant and of others.
    static func backend(_ candidate: Int) -> BackendAddress {
        BackendAddress(Endpoint(IPAddress(high: 0xFD00 << 48, low: 1), UInt16(20_000 + candidate)))
    }

    /// Bytes that the worker has taken from the client and not yet handed on; the prelude counts as taken.
    var heldUp: Int {
        guard let upstream else { return 0 }
        return preamble.count + max(0, client.taken - consumed) - upstream.sent
    }
    var heldDown: Int { (upstream?.taken ?? 0) - upgrade.heard - (client.sent - said.count) }

    /// All that the client sends, as its backend should see it.
    var allUp: Int { preamble.count + max(0, plan.client.bytes - consumed) }
}
