import CLinux
import CMnl
import Glibc
import Pipeline
import PipelineFlows
import PipelineHost
import PipelineNetlink
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// Counts traffic outside the relay (UDP, ICMP and the rest) from conntrack, by libmnl: a thread receives end events
/// and periodically dumps the whole table with counters (R21).
///
/// Losing events is normal under load and costs little: the kernel reports it (ENOBUFS), the table is read again at
/// once, and a missed end loses only the growth since the last dump. The socket therefore does not ask for reliable
/// delivery, with which entries with undelivered ends would fill the kernel's table until it drops tenants' packets.
/// Nor does it set NETLINK_NO_ENOBUFS, which would hide the loss.
///
/// Needs CAP_NET_ADMIN, `nf_conntrack_acct` and a rule that uses conntrack. It looks at the network namespace of the
/// thread that opens it.
///
/// Threading: ``statistics`` from any thread; `emit` and `instance` are called on the collector's own thread;
/// ``stop()`` once, by the owner.
package final class ConntrackCollector: @unchecked Sendable {
    package struct Statistics: Equatable, Sendable {
        package var records: UInt64 = 0
        package var dumps: UInt64 = 0
        /// Dumps that broke off or may have missed entries.
        package var brokenDumps: UInt64 = 0
        /// When the table was last read whole: nanoseconds since 1970, 0 for never.
        package var lastDump: UInt64 = 0
        /// The errno of the last refused dump; 0: none.
        package var refusal: Int32 = 0
        /// Times that the kernel had more events than the socket could hold.
        package var overruns: UInt64 = 0
        /// Messages that could not be read.
        package var unreadable: UInt64 = 0
        package var tracked = 0
        /// See `ConntrackAccount.Statistics`.
        package var baselined: UInt64 = 0
        package var deferred: UInt64 = 0
        package var missedEnds: UInt64 = 0
        package var withoutCounters: UInt64 = 0
        /// The kernel's table, after the last dump; nil: not read yet, or unknown.
        package var table: ConntrackRoom.Reading?
        /// It is nearly full.
        var isTableFull = false
    }

    private static let stackBytes = 1 << 19
    /// The most event batches before a dump gets its turn.
    private static let batches = 64
    /// A dump that takes longer counts as aborted.
    private static let longestDump = TimeSpan.seconds(10)
    /// Between dumps that lost events ask for.
    private static let shortestGap = TimeSpan.milliseconds(200)
    private static let destroyGroup: UInt32 = 4  // NF_NETLINK_CONNTRACK_DESTROY

    private let settings: ConntrackSettings
    private let events: NetlinkSocket
    private let dumps: NetlinkSocket
    private let loop: ThreadLoop
    private let emit: @Sendable ([FlowRecord]) -> Void
    private let write: @Sendable ([UInt8]) -> Void
    private let shared = Mutex(Statistics())
    // The thread's own.
    private var account: ConntrackAccount
    private var mine = Statistics()
    private var isDumping = false
    private var isDumpWhole = true
    /// The socket of ends was found empty since the dump before was over.
    private var hasHeardEnds = false
    private var dumpDue = Instant(nanoseconds: 0)
    private var dumpBegan = Instant(nanoseconds: 0)
    private var hasSaidNoCounters = false
    private let room: ConntrackRoom
    private var fullness = ConntrackFullness()
    /// How many dumps there are once the last is over; nil: it has not begun, as the thread was not told to end.
    private var lastDump: UInt64?

    private init(
        _ settings: ConntrackSettings, _ events: NetlinkSocket, _ dumps: NetlinkSocket, _ loop: ThreadLoop,
        countsFrom: UInt64, room: ConntrackRoom, instance: @escaping @Sendable (IPAddress) -> UInt32?,
        emit: @escaping @Sendable ([FlowRecord]) -> Void, write: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.settings = settings
        self.events = events
        self.dumps = dumps
        self.loop = loop
        self.room = room
        self.emit = emit
        self.write = write
        account = ConntrackAccount(settings, countsFrom: countsFrom, instance: instance)
    }

    /// Opens the sockets and starts the thread.
    /// - Parameters:
    ///   - countsFrom: see ``ConntrackAccount``; nil: now.
    ///   - instance: whose address this is, by index into the instance directory; nil: none of this node.
    ///   - emit: takes records, each tick's together: at the end of each dump, and when there are many.
    ///   - write: takes whole log lines.
    /// - Returns: nil, with an errno: EPERM without CAP_NET_ADMIN, EPROTONOSUPPORT without netlink.
    package static func start(
        _ settings: ConntrackSettings, countsFrom: UInt64? = nil, room: ConntrackRoom = ConntrackRoom(),
        instance: @escaping @Sendable (IPAddress) -> UInt32?,
        emit: @escaping @Sendable ([FlowRecord]) -> Void,
        write: @escaping @Sendable ([UInt8]) -> Void
    ) -> (collector: ConntrackCollector?, error: Int32) {
        let (events, failed) = NetlinkSocket.open(NETLINK_NETFILTER, groups: destroyGroup)
        guard let events else { return (nil, failed) }
        setReceiveBuffer(events, settings.receiveBuffer)
        let (dumps, error) = NetlinkSocket.open(NETLINK_NETFILTER)
        guard let dumps else { return (nil, error) }
        let (made, failure) = ThreadLoop.make()
        guard let loop = made else { return (nil, failure) }
        let collector = ConntrackCollector(
            settings, events, dumps, loop, countsFrom: countsFrom ?? cl_wall_clock(),
            room: room, instance: instance, emit: emit, write: write)
        let notStarted = loop.start("conntrack", stackBytes: stackBytes) { collector.iterate() }
        return notStarted == 0 ? (collector, 0) : (nil, notStarted)
    }

    package var statistics: Statistics { shared.withLock { $0 } }

    /// Reads the table a last time, gives the last records, and ends the thread.
    package func stop() { loop.stop() }

    // MARK: Sockets

    /// Beyond `net.core.rmem_max` only with CAP_NET_ADMIN: without it, as much as there is.
    private static func setReceiveBuffer(_ socket: NetlinkSocket, _ bytes: Int) {
        var size = Int32(clamping: bytes / 2)  // The kernel doubles it.
        let length = socklen_t(MemoryLayout<Int32>.size)
        if setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, length) != 0 {
            setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVBUF, &size, length)
        }
    }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        takeEvents()
        takeDump()
        if account.isFull { flush() }
        if let lastDump, mine.dumps + mine.brokenDumps >= lastDump {
            flush()
            return .over
        }
        let now = Instant(nanoseconds: cl_now())
        // The last dump begins after it was told to end.
        if loop.isEnding, lastDump == nil {
            dumpDue = now
            lastDump = mine.dumps + mine.brokenDumps + (isDumping ? 2 : 1)
        }
        if !isDumping, now >= dumpDue { beginDump(now) }
        return .wait(
            until: isDumping ? now + .seconds(1) : dumpDue, [.readable(events.descriptor), .readable(dumps.descriptor)])
    }

    private enum Batch { case read, nothing, broken }

    private func receive(_ socket: NetlinkSocket, _ body: (ConntrackMessage, UInt16) -> Void) -> Batch {
        switch socket.receive() {
        case .messages(let bytes):
            ConntrackReader.read(bytes, body)
            return .read
        case .nothing: return .nothing
        case .failed: return .broken
        }
    }

    private func takeEvents() {
        let now = cl_wall_clock()
        for _ in 0..<ConntrackCollector.batches {
            switch receive(events, { message, _ in see(message, now) }) {
            case .read: if account.isFull { flush() }
            case .nothing:
                hasHeardEnds = true
                return
            case .broken:
                mine.overruns += 1
                let soon = Instant(nanoseconds: cl_now()) + ConntrackCollector.shortestGap
                dumpDue = min(dumpDue, soon)
            }
        }
    }

    private func see(_ message: ConntrackMessage, _ now: UInt64) {
        switch message {
        case .entry(let entry): account.see(entry, isEnd: false, now: now)
        case .end(let entry): account.see(entry, isEnd: true, now: now)
        case .other: mine.unreadable += 1
        case .done, .error: break
        }
    }

    // MARK: Dumps

    private func beginDump(_ now: Instant) {
        dumpDue = now + settings.interval
        dumpBegan = now
        dumps.beginRequest()
        // Of any family.
        let request = dumps.message(ConntrackReader.getEntry, NLM_F_DUMP, nfgenmsg())
        guard let request, dumps.send(Int(request.pointee.nlmsg_len)) == 0 else {
            mine.brokenDumps += 1
            publish()
            return
        }
        isDumping = true
        isDumpWhole = true
        account.beginDump()
    }

    private func takeDump() {
        guard isDumping else { return }
        let now = cl_wall_clock()
        var isOver = false
        let batch = receive(dumps) { message, flags in
            if flags & UInt16(NLM_F_DUMP_INTR) != 0 { isDumpWhole = false }
            switch message {
            case .done: isOver = true
            case .error(let error):
                if error != 0 { noteRefusal(error) }
                isDumpWhole = isDumpWhole && error == 0
                isOver = isOver || error != 0
            default: see(message, now)
            }
        }
        switch batch {
        case .read: break
        case .nothing:
            let age = Instant(nanoseconds: cl_now()).since(dumpBegan)
            if age > ConntrackCollector.longestDump { (isOver, isDumpWhole) = (true, false) }
        case .broken: (isOver, isDumpWhole) = (true, false)
        }
        if isOver { finishDump() }
    }

    /// Logged once until a dump succeeds again: the socket may open although the kernel lacks conntrack netlink.
    private func noteRefusal(_ error: Int32) {
        defer { mine.refusal = error }
        guard mine.refusal != error else { return }
        write(ControlLog.line("conntrack_failed", ConntrackQueue.explain(error), time: cl_wall_clock()))
    }

    private func finishDump() {
        isDumping = false
        account.finishDump(isComplete: isDumpWhole, hasHeardEnds: hasHeardEnds)
        hasHeardEnds = false
        if isDumpWhole {
            mine.dumps += 1
            mine.lastDump = cl_wall_clock()
            mine.refusal = 0
        } else {
            mine.brokenDumps += 1
        }
        lookAtRoom()
        if account.statistics.withoutCounters > 0, !hasSaidNoCounters {
            hasSaidNoCounters = true
            write(
                ControlLog.line(
                    "conntrack_no_counters",
                    "conntrack has no byte counters for some connections, which count as 0 bytes: set `sysctl "
                        + "net.netfilter.nf_conntrack_acct=1`; connections opened before that stay without counters",
                    time: cl_wall_clock()))
        }
        flush()
    }

    /// A full table drops connections, which otherwise only the kernel's log shows.
    private func lookAtRoom() {
        mine.table = room.read()
        guard let table = mine.table, fullness.look(table) else { return }
        mine.isTableFull = fullness.isFull
        let text =
            fullness.isFull
            ? ConntrackQueue.explain(full: table) : "the kernel's conntrack table has room again"
        let event = fullness.isFull ? "conntrack_full" : "conntrack_room"
        let line = ControlLog.line(event, text, time: cl_wall_clock()) { line in
            line.field("count", table.count)
            line.field("max", table.most)
            line.field("dropped", table.dropped)
        }
        write(line)
    }

    private func flush() {
        let records = account.take()
        mine.records += UInt64(records.count)
        publish()
        if !records.isEmpty { emit(records) }
    }

    private func publish() {
        let counted = account.statistics
        mine.tracked = account.tracked
        mine.baselined = counted.baselined
        mine.deferred = counted.deferred
        mine.missedEnds = counted.missedEnds
        mine.withoutCounters = counted.withoutCounters
        shared.withLock { $0 = mine }
    }
}
