import CCares
import CLinux
import FilterBackendSelect
import Glibc
import Pipeline

/// One lookup of a name: its queries, and those that follow from their answers. c-ares sends, tries again, asks over TCP what
/// was cut, and parses (docs/adr/0091). Each lookup has sockets, and with them source ports, of its own.
///
/// Threading: one thread.
final class Lookup {
    /// The longest, whatever the tries.
    static let longest = TimeSpan.seconds(30)
    /// The most sockets of one lookup.
    static let socketLimit = Int(ARES_GETSOCK_MAXNUM)

    let name: BackendName
    private let deadline: Instant
    private var channel: ares_channel?
    private(set) var result = LookupResult()
    /// Queries without an answer yet.
    private var pending = 0
    /// Targets of a service that are to be asked for.
    private var targets: [String] = []

    private enum Kind: Int32 {
        case v4 = 1
        case v6 = 28
        case service = 33
    }

    /// What a query's callback gets.
    private final class Query {
        let lookup: Lookup
        let host: String
        let kind: Kind
        init(_ lookup: Lookup, _ host: String, _ kind: Kind) {
            self.lookup = lookup
            self.host = host
            self.kind = kind
        }
    }

    init(_ name: BackendName, _ settings: ResolveSettings, at now: Instant) {
        self.name = name
        deadline = now + Lookup.longest
        do throws(LookupStartError) {
            channel = try LookupChannel.make(settings.values)
        } catch {
            result = .failed(name, error.problem)
            return
        }
        switch name.kind {
        case .host: askForHost(name.host)
        case .service: ask(name.host, .service)
        }
        askForTargets()
    }

    deinit { close() }

    /// Also while queries run, whose callbacks are called then.
    func close() {
        guard let channel else { return }
        self.channel = nil
        ares_destroy(channel)
    }

    var isOver: Bool { pending == 0 && targets.isEmpty }

    // MARK: Sockets

    /// Its sockets, and what they wait for.
    func waits() -> [cl_poll_item] {
        guard let channel else { return [] }
        var sockets = [ares_socket_t](repeating: 0, count: Lookup.socketLimit)
        let bits = UInt32(bitPattern: ares_getsock(channel, &sockets, Int32(Lookup.socketLimit)))
        return sockets.indices.compactMap { index in
            let (reads, writes) = (bits >> UInt32(index) & 1 == 1, bits >> UInt32(index + Lookup.socketLimit) & 1 == 1)
            return reads || writes ? cl_poll_item(sockets[index], reads: reads, writes: writes) : nil
        }
    }

    /// When it is to be worked on, whatever its sockets have.
    func wakeUp(_ now: Instant) -> Instant {
        guard let channel else { return now }
        var time = timeval()
        guard ares_timeout(channel, nil, &time) != nil else { return deadline }
        let milliseconds = UInt32(clamping: max(0, time.tv_sec)) &* 1000 &+ UInt32(clamping: time.tv_usec / 1000) &+ 1
        return min(deadline, now + .milliseconds(milliseconds))
    }

    /// Reads and writes what can be, and notices timeouts.
    func work(_ now: Instant) {
        guard let channel else { return }
        let ready = waits()
        // Non-blocking sockets: asking one that has nothing costs a call.
        for item in ready {
            let reads = item.wants & UInt8(CL_READABLE) != 0
            let writes = item.wants & UInt8(CL_WRITABLE) != 0
            ares_process_fd(channel, reads ? item.fd : Lookup.noSocket, writes ? item.fd : Lookup.noSocket)
        }
        ares_process_fd(channel, Lookup.noSocket, Lookup.noSocket)
        askForTargets()
        if now >= deadline { ares_cancel(channel) }
    }

    private static let noSocket: ares_socket_t = -1

    // MARK: Queries

    private func askForHost(_ host: String) {
        result.hosts[host] = HostAnswer(v4: .failed("no answer"), v6: .failed("no answer"))
        ask(host, .v4)
        ask(host, .v6)
    }

    private func ask(_ host: String, _ kind: Kind) {
        guard let channel else { return }
        pending += 1
        let query = Unmanaged.passRetained(Query(self, host, kind)).toOpaque()
        ares_query(
            channel, host, Int32(1), kind.rawValue,
            { context, status, _, bytes, count in
                guard let context else { return }
                let query = Unmanaged<Query>.fromOpaque(context).takeRetainedValue()
                query.lookup.take(
                    query.host, query.kind, status, UnsafeBufferPointer(start: bytes, count: max(0, Int(count))))
            }, query)
    }

    /// Not from a callback, which may still look at the channel.
    private func askForTargets() {
        while let target = targets.popLast() { askForHost(target) }
    }

    private func take(_ host: String, _ kind: Kind, _ status: Int32, _ message: UnsafeBufferPointer<UInt8>) {
        pending -= 1
        switch kind {
        case .v4: result.hosts[host]?.v4 = AnswerReader.v4(message, status)
        case .v6: result.hosts[host]?.v6 = AnswerReader.v6(message, status)
        case .service:
            let answer = AnswerReader.services(message, status)
            result.service = answer
            guard case .found(let records, _) = answer else { return }
            // Which they are is not for the order of the answer to say.
            targets = Array(Set(records.map(\.target)).sorted().prefix(ServiceRecord.targetLimit))
        }
    }
}
