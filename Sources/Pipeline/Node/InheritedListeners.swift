import CLinux
import Glibc
import Pipeline
import PipelineKeep
import PipelineRuntime
import PipelineThreads

/// A descriptor that this process was given at its start, and what it is.
package struct InheritedSocket: Sendable {
    package let descriptor: Descriptor
    /// As who gave it calls it.
    package let name: String
    package let endpoint: Endpoint
    /// Why no listener of any config can be it; nil: one can.
    package let fault: String?
    /// The index of the interface that it is bound to; 0: none.
    let interface: UInt32
    let isMultipath: Bool
    /// A node before this one put it into a store. Else its owner is the service manager, which keeps it whatever happens
    /// here.
    let isOurs: Bool

    /// Asks the kernel what it is.
    init(_ descriptor: Descriptor, name: String) {
        self.descriptor = descriptor
        self.name = name
        isOurs = ListenerStore.isOurs(name)
        var (facts, at) = (cl_listener_facts(), cl_endpoint())
        let failed = cl_listener_look(descriptor.number, &facts, &at)
        endpoint = failed == 0 ? Endpoint(at) : Endpoint(.unspecified, 0)
        interface = facts.interface
        isMultipath = facts.protocol == InheritedSocket.multipathTCP
        fault = InheritedSocket.fault(failed, facts)
    }

    private static let multipathTCP: Int32 = 262

    private static func fault(_ failed: Int32, _ facts: cl_listener_facts) -> String? {
        if failed < 0 { return "it is no socket (\(errorText(failed)))" }
        guard facts.family == AF_INET || facts.family == AF_INET6,
            facts.protocol == Int32(IPPROTO_TCP) || facts.protocol == multipathTCP
        else { return "it is no socket of TCP" }
        if facts.listens == 0 { return "it does not listen" }
        if facts.is_elsewhere != 0 { return "it belongs to another network namespace" }
        if facts.takes_both != 0 {
            return "it takes IPv4 connections as well, which need a listener of their own: set BindIPv6Only=ipv6-only "
                + "in its socket unit"
        }
        return nil
    }

    private static func errorText(_ failed: Int32) -> String { String(cString: cl_error_name(-failed)) }
}

/// Listening sockets that this process was given at its start, by whichever way: socket activation, a store of
/// descriptors, a node that it replaces. Each is looked at before it is used: names decide nothing.
///
/// The listeners of the config take those that fit. What is left over is closed once the node serves
/// (``closeRest()``); until then nothing is lost if the start fails.
///
/// Threading: the control thread. Ownership: of those that were not taken.
package final class InheritedListeners {
    private var sockets: [InheritedSocket]
    private var taken: Set<Descriptor> = []
    private lazy var plainIsFine = cl_has_multipath() == 0

    package init(_ sockets: [InheritedSocket]) { self.sockets = sockets }

    package static var none: InheritedListeners { InheritedListeners([]) }

    /// What the service manager, or the keeper of `run --keep`, gave. Call it before the process opens anything, once.
    package static func ofServiceManager() -> InheritedListeners {
        InheritedListeners(ListenVariables.take().map { InheritedSocket(Descriptor($0.descriptor), name: $0.name) })
    }

    // MARK: Taking

    package var isEmpty: Bool { sockets.isEmpty }
    package var count: Int { sockets.count }

    /// All of their names, those that were taken too.
    func name(of descriptor: Descriptor) -> String? { sockets.first { $0.descriptor == descriptor }?.name }
    /// Whoever gave it keeps it, whether this node ends it or not.
    func isManagers(_ descriptor: Descriptor) -> Bool {
        sockets.contains { $0.descriptor == descriptor && !$0.isOurs }
    }

    /// One of them has the port.
    func has(_ port: UInt16) -> Bool { sockets.contains { $0.fault == nil && $0.endpoint.port == port } }

    /// Those that fit a listener, from now on its own. Nobody else's: an interface, Multipath TCP and an address make
    /// another listener.
    /// - Parameter interface: the index of the listener's; 0: it has none.
    func take(_ spec: ListenerSpec, interface: UInt32) -> [InheritedSocket] {
        guard !sockets.isEmpty, spec.options.interface == nil || interface != 0 else { return [] }
        let fitting = sockets.filter { socket in
            socket.fault == nil && socket.endpoint == spec.endpoint && socket.interface == interface
                && !taken.contains(socket.descriptor)
                && (socket.isMultipath == spec.options.multipath || (!socket.isMultipath && plainIsFine))
        }
        for socket in fitting { taken.insert(socket.descriptor) }
        return fitting
    }

    func hasTaken(_ descriptor: Descriptor) -> Bool { taken.contains(descriptor) }

    /// True: it was one of these, and can be taken again.
    func takeBack(_ descriptor: Descriptor) -> Bool { taken.remove(descriptor) != nil }

    // MARK: The rest

    /// A socket that no listener took.
    struct Closed {
        let socket: InheritedSocket
        /// Connections in its queue, which were reset.
        let refused: Int
        var why: String { socket.fault ?? "no listener of the config is there" }
    }

    /// For a start that fails: why sockets can't be any listener's.
    package var faults: [String] {
        sockets.compactMap { socket in
            socket.fault.map {
                "the socket \(socket.name) that this process was started with (\(socket.endpoint)) can't be used: \($0)"
            }
        }
    }

    /// Refuses who waits at those that no listener took, and closes them. What a node stored ends for everybody; what is
    /// the service manager's goes on there.
    func closeRest() -> [Closed] {
        let rest = sockets.filter { !taken.contains($0.descriptor) }
        let closed = rest.map { socket in
            let refused = socket.endpoint.port == 0 ? 0 : InheritedListeners.refuseQueue(socket.descriptor)
            if socket.isOurs {
                _ = cl_close_listener(socket.descriptor.number)
            } else {
                _ = cl_close(socket.descriptor.number)
            }
            return Closed(socket: socket, refused: refused)
        }
        sockets.removeAll { !taken.contains($0.descriptor) }
        return closed
    }

    /// The node serves: from here on its listeners are as any others.
    func forget() { (sockets, taken) = ([], []) }

    /// No queue is longer, and no start waits for one that grows meanwhile.
    private static let longestQueue = 65536

    private static func refuseQueue(_ listener: Descriptor) -> Int {
        var (refused, peer) = (0, cl_endpoint())
        while refused < longestQueue {
            // A listener of somebody else may wait for a connection.
            var item = cl_poll_item.readable(listener.number)
            guard cl_poll(&item, 1, 0) > 0 else { break }
            let client = cl_accept(listener.number, &peer)
            guard client >= 0 else { break }
            _ = cl_close_with_reset(client)
            refused += 1
        }
        return refused
    }
}
