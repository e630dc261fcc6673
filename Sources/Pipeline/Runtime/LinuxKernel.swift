import CLinux
import Pipeline

/// Production: one epoll instance, and direct Linux system calls.
package struct LinuxKernel: Kernel {
    private let epoll: Descriptor
    private var reserve: Descriptor
    /// The original number, which stays valid in control's descriptor table.
    private let firstReserve: Descriptor
    /// The process, if this worker has its own descriptor table; none: the table is shared.
    private var process = Descriptor.none
    private var options: cl_connect_options
    private let mark: UInt32
    private var nodePeers = NodePeers()
    private var events: UnsafeMutableBufferPointer<cl_event>
    /// By worker: the eventfd that wakes it. Empty: there is no other one.
    private var wakes = UnsafeMutableBufferPointer<Int32>(start: nil, count: 0)

    /// - Throws: ``KernelError`` if the epoll or the reserve descriptor can't be had.
    package init(_ settings: NodeSettings) throws(KernelError) {
        let epoll = cl_epoll_create()
        guard epoll >= 0 else { throw KernelError(call: "epoll_create1", error: -epoll) }
        let reserve = cl_open_null()
        guard reserve >= 0 else { throw KernelError(call: "open /dev/null", error: -reserve) }
        self.epoll = Descriptor(epoll)
        self.reserve = Descriptor(reserve)
        firstReserve = Descriptor(reserve)
        mark = settings.mark
        // The system's own range, set per socket: the kernel then searches all of it, instead of the even ports first,
        // which may be exhausted (docs/adr/0033).
        options = cl_connect_options(
            port_range: cl_local_port_range(),
            keepalive_idle_s: SocketOptions.seconds(settings.keepaliveIdle),
            user_timeout_ms: SocketOptions.milliseconds(settings.userTimeout),
            congestion: SocketOptions.persistentName(settings.congestionUpstream))
        events = .allocate(capacity: 256)
    }

    /// Gives the calling worker thread its own descriptor table (docs/adr/0034), with this kernel's descriptors and
    /// `also`. If the system refuses, the worker shares the process's table.
    package mutating func ownDescriptors(and also: Descriptor) {
        let kept = [epoll.number, reserve.number, also.number] + wakes.filter { $0 != also.number }
        process = Descriptor(max(cl_own_descriptors(kept, Int32(kept.count)), -1))
    }

    /// Closes this kernel's own descriptors, and with them every registration. Call once, after the worker's thread has
    /// ended: its own descriptor table is gone then, and the originals remain.
    package mutating func shutDown() {
        _ = cl_close(epoll.number)
        let last = process.isOpen ? firstReserve : reserve
        if last.isOpen { _ = cl_close(last.number) }
        if process.isOpen { _ = cl_close(process.number) }
        events.deallocate()
        wakes.deallocate()
        SocketOptions.release(options.congestion)
    }

    /// The eventfds of all workers, by index: kept across ``ownDescriptors(and:)``, which comes later.
    package mutating func know(_ workers: [Descriptor]) {
        wakes.deallocate()
        wakes = .allocate(capacity: workers.count)
        _ = wakes.initialize(from: workers.map(\.number))
    }

    package func wake(workersAt place: Int) {
        var worker = place
        while worker < wakes.count {
            _ = cl_eventfd_signal(wakes[worker])
            worker += WaitQueue.places
        }
    }

    package func now() -> Instant { Instant(nanoseconds: cl_now()) }
    package func wallClock() -> UInt64 { cl_wall_clock() }

    package func take(_ listener: Descriptor) -> Outcome {
        let taken =
            process.isOpen ? cl_take_descriptor(process.number, listener.number) : cl_copy_descriptor(listener.number)
        return Outcome(Int(taken))
    }
    package func stopListening(_ listener: Descriptor) { _ = cl_close_listener(listener.number) }
    package func letGo(_ listener: Descriptor) { _ = cl_close(listener.number) }

    package func accept(_ listener: Descriptor, _ accepted: inout Accepted) -> Outcome {
        var peer = cl_endpoint()
        let fd = cl_accept(listener.number, &peer)
        if fd >= 0 { accepted = Accepted(descriptor: Descriptor(fd), peer: Endpoint(peer)) }
        return Outcome(Int(fd))
    }

    package mutating func refuse(_ listener: Descriptor, _ peer: inout Endpoint) -> Outcome {
        // Others may have taken its place when it was last given up.
        if !reserve.isOpen { reserve = Descriptor(cl_open_null()) }
        guard reserve.isOpen else { return Outcome(Int(reserve.number)) }
        _ = cl_close(reserve.number)
        var raw = cl_endpoint()
        let fd = cl_accept(listener.number, &raw)
        if fd >= 0 { _ = cl_close_with_reset(fd) }
        reserve = Descriptor(cl_open_null())
        peer = Endpoint(raw)
        return Outcome(Int(fd))
    }

    package func localAddress(_ descriptor: Descriptor) -> Endpoint? {
        var local = cl_endpoint()
        return cl_local_endpoint(descriptor.number, &local) == 0 ? Endpoint(local) : nil
    }

    package mutating func connect(_ backend: BackendAddress, _ way: UpstreamWay, on idle: Descriptor) -> Outcome {
        if let path = UnixSockets.path(backend.endpoint) { return connect(path: path) }
        var to = cl_endpoint(backend.endpoint)
        var way = cl_way(way, mark: mark)
        guard !idle.isOpen else { return Outcome(Int(cl_connect_again(idle.number, &to, &way, &options))) }
        return Outcome(Int(cl_connect_by(&to, &way, &options)))
    }

    /// 0, or the errno by which this process may not connect from addresses that are not this host's.
    package static func refusesForeignSources() -> Int32 { -cl_may_connect_as_others() }

    /// Connects to a Unix socket at once, or fails: no later event decides.
    private mutating func connect(path: UnsafePointer<CChar>) -> Outcome {
        var process: Int32 = 0
        let fd = cl_unix_connect_to_other(path, &process)
        if fd >= 0, nodePeers.isNode(process, at: now()) {
            _ = cl_close(fd)
            return Outcome(-Int(ErrorNumber.ofItself))
        }
        return Outcome(Int(fd >= 0 ? fd : -ErrorNumber.ofUnixConnect(-fd)))
    }

    package func originalDestination(_ descriptor: Descriptor) -> Endpoint? {
        var original = cl_endpoint()
        return cl_original_destination(descriptor.number, &original) == 0 ? Endpoint(original) : nil
    }

    package func interface(of descriptor: Descriptor) -> UInt32 { cl_incoming_interface(descriptor.number) }

    package func isOwn(_ address: IPAddress) -> Bool { LinuxKernel.hostHas(address) }

    /// Whether it is an address of this host. For any thread.
    package static func hostHas(_ address: IPAddress) -> Bool {
        var at = cl_endpoint(Endpoint(address, 0))
        return cl_host_has(&at) == 1
    }

    package func guardAgainstDeath(_ descriptor: Descriptor) {
        _ = cl_watch_over(descriptor.number, options.keepalive_idle_s, options.user_timeout_ms)
    }

    package func silence(of descriptor: Descriptor) -> PeerSilence? {
        var silence = cl_silence()
        guard cl_silence_of(descriptor.number, &silence) == 0 else { return nil }
        return PeerSilence(
            isOwed: silence.owed, isUnanswered: silence.unanswered, lasts: .milliseconds(silence.milliseconds),
            quiet: .milliseconds(silence.quiet_milliseconds))
    }

    package func lastSent(_ descriptor: Descriptor) -> TimeSpan? {
        var silence = cl_silence()
        guard cl_silence_of(descriptor.number, &silence) == 0 else { return nil }
        return .milliseconds(silence.sent_milliseconds)
    }

    package func probe(_ descriptor: Descriptor, every longest: TimeSpan?) {
        _ = cl_set_longest_wait(descriptor.number, longest.map(SocketOptions.milliseconds) ?? .max)
    }

    package func capBuffers(_ descriptor: Descriptor) { _ = cl_cap_buffers(descriptor.number, 65536) }

    package func pendingError(_ descriptor: Descriptor) -> Int32 { cl_socket_error(descriptor.number) }

    package func receive(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        Outcome(cl_receive(descriptor.number, buffer.baseAddress, buffer.count))
    }

    package func peek(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        Outcome(cl_peek(descriptor.number, buffer.baseAddress, buffer.count))
    }
    package func discard(_ descriptor: Descriptor, _ count: Int) -> Outcome {
        Outcome(cl_skip(descriptor.number, count))
    }

    package func send(
        _ descriptor: Descriptor, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer
    ) -> Outcome {
        Outcome(cl_send(descriptor.number, first.baseAddress, first.count, second.baseAddress, second.count))
    }

    package func setLowWater(_ descriptor: Descriptor, _ bytes: Int) {
        _ = cl_set_low_water(descriptor.number, Int32(clamping: bytes))
    }

    package func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome {
        Outcome(cl_splice(from.number, to.number, count, more))
    }

    package func pacedSegment(_ descriptor: Descriptor) -> Int? {
        let segment = cl_paced_segment(descriptor.number)
        return segment > 0 ? Int(segment) : nil
    }

    package func makePipe(capacity: Int, writeEnd: inout Descriptor) -> Outcome {
        var ends: (Int32, Int32) = (-1, -1)
        let made = withUnsafeMutablePointer(to: &ends) {
            $0.withMemoryRebound(to: Int32.self, capacity: 2) { cl_pipe($0, Int32(clamping: capacity)) }
        }
        guard made == 0 else { return Outcome(Int(made)) }
        writeEnd = Descriptor(ends.1)
        return Outcome(Int(ends.0))
    }

    package func shutdownWrite(_ descriptor: Descriptor) { _ = cl_shutdown_write(descriptor.number) }
    package func close(_ descriptor: Descriptor) { _ = cl_close(descriptor.number) }
    package func isDelivered(_ descriptor: Descriptor) -> Bool { cl_unacknowledged(descriptor.number) == 0 }
    package func disconnect(_ descriptor: Descriptor) -> Bool { cl_disconnect(descriptor.number) == 0 }
    package func closeWithReset(_ descriptor: Descriptor) { _ = cl_close_with_reset(descriptor.number) }

    package func watch(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        Outcome(Int(cl_watch(epoll.number, descriptor.number, key.rawValue)))
    }
    package func watchLevel(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        Outcome(Int(cl_watch_level(epoll.number, descriptor.number, key.rawValue)))
    }
    package func unwatch(_ descriptor: Descriptor) { _ = cl_unwatch(epoll.number, descriptor.number) }

    package func wait(_ out: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int {
        let nanoseconds = timeout.map { Int64(clamping: $0.nanoseconds) } ?? -1
        let capacity = min(out.count, events.count)
        let count = Int(cl_wait(epoll.number, events.baseAddress, Int32(clamping: capacity), nanoseconds))
        guard count > 0 else { return 0 }
        for i in 0..<min(count, capacity) {
            out[i] = Event(
                key: EventKey(rawValue: events[i].key), readiness: Readiness(rawValue: events[i].readiness))
        }
        return min(count, capacity)
    }
}

/// A required system call failed.
package struct KernelError: Error, Sendable {
    package let call: String
    package let error: Int32
    package init(call: String, error: Int32) {
        self.call = call
        self.error = error
    }
}

extension Endpoint {
    package init(_ raw: cl_endpoint) { self.init(IPAddress(high: raw.high, low: raw.low), raw.port) }
}

extension cl_endpoint {
    package init(_ endpoint: Endpoint) {
        self.init(high: endpoint.address.high, low: endpoint.address.low, port: endpoint.port)
    }
}

extension cl_way {
    package init(_ way: UpstreamWay, mark: UInt32) {
        self.init(
            from: cl_endpoint(Endpoint(way.source ?? .unspecified, 0)), mark: way.isMarked ? mark : 0,
            has_source: way.source != nil, is_foreign: way.isForeign)
    }
}

/// Units of socket options.
enum SocketOptions {
    /// Whole seconds, rounded up; 0 for "as the system has it".
    static func seconds(_ span: TimeSpan) -> Int32 {
        Int32(clamping: span.nanoseconds / 1_000_000_000 + (span.nanoseconds % 1_000_000_000 == 0 ? 0 : 1))
    }
    static func milliseconds(_ span: TimeSpan) -> Int32 { Int32(clamping: span.milliseconds) }

    /// A C string that lives until ``release(_:)``.
    static func persistentName(_ name: String?) -> UnsafePointer<CChar>? {
        guard let name else { return nil }
        let bytes = Array(name.utf8CString)
        let memory = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
        memory.initialize(from: bytes, count: bytes.count)
        return UnsafePointer(memory)
    }
    static func release(_ name: UnsafePointer<CChar>?) {
        if let name { UnsafeMutablePointer(mutating: name).deallocate() }
    }
}
