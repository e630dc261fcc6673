import CLinux
import Pipeline
import PipelineRuntime

/// How a listener comes by its sockets: from those that the process was given, and new ones.
extension ListenerKeeper {
    /// One socket for each worker at least, or none. More, if more were inherited: then workers have several.
    func openForWorkers(_ spec: ListenerSpec) throws(ListenError) -> OpenListener {
        var spec = spec
        // Asked before: if it is another one by then, the next news of interfaces says so.
        let interface = spec.options.interface.map { cl_interface_index($0) } ?? 0
        var sockets: [Descriptor] = []
        do throws(ListenError) {
            for socket in inherited.take(spec, interface: interface) {
                sockets.append(socket.descriptor)
                try ListenerSocket.inherit(socket.descriptor, spec, settings: settings)
            }
            let given = sockets
            while sockets.count < workers {
                let socket = try openBeside(given, spec, sockets.count)
                // The port that the kernel chose for the first worker is used for the others.
                if given.isEmpty { spec = spec.bound(at: socket.endpoint) }
                sockets.append(socket.release())
            }
        } catch {
            close(sockets)
            throw error
        }
        return OpenListener(
            sockets: sockets, bound: spec.endpoint, interface: interface,
            isMultipath: spec.options.multipath && sockets.allSatisfy(ListenerSocket.isMultipath))
    }

    /// The kernel lets only sockets of one user share a port, and a service manager's are root's: there workers accept
    /// from one socket.
    private func openBeside(
        _ given: [Descriptor], _ spec: ListenerSpec, _ worker: Int
    ) throws(ListenError) -> ListenerSocket {
        do throws(ListenError) {
            return try ListenerSocket.open(spec, settings: settings)
        } catch {
            guard error.error == ErrorNumber.addressInUse, !given.isEmpty else { throw error }
            return try ListenerSocket.copy(of: given[worker % given.count], spec)
        }
    }

    /// Of a listener that is not opened after all: what was inherited can be taken again.
    func close(_ sockets: [Descriptor]) {
        for socket in sockets where !inherited.takeBack(socket) { ListenerSocket.close(socket) }
    }

    /// Workers share a port by `SO_REUSEPORT`. A second node of the same user would share it too, and silently take
    /// half of the connections, so a test bind without the option comes first. If one of our own listeners has the port
    /// already, the test can't tell, and is skipped.
    /// - Parameter isOurs: whether one of them has a port.
    func requireUnshared(_ spec: ListenerSpec, _ isOurs: (UInt16) -> Bool) throws(ListenError) {
        let port = spec.endpoint.port
        guard port != 0, !isClosing(port), !inherited.has(port), !isOurs(port) else { return }
        try ListenerSocket.open(spec, settings: settings, reusePort: false).close()
    }
}
