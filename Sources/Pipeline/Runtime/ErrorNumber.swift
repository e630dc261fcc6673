import Glibc

/// The error numbers that the state machine distinguishes.
package enum ErrorNumber {
    package static var notPermitted: Int32 { EPERM }
    package static var noEntry: Int32 { ENOENT }
    package static var noDevice: Int32 { ENODEV }
    package static var again: Int32 { EAGAIN }
    package static var noMemory: Int32 { ENOMEM }
    package static var accessDenied: Int32 { EACCES }
    package static var brokenPipe: Int32 { EPIPE }
    package static var protocolError: Int32 { EPROTO }
    package static var protocolUnavailable: Int32 { ENOPROTOOPT }
    package static var tooManyFilesInSystem: Int32 { ENFILE }
    package static var tooManyFiles: Int32 { EMFILE }
    package static var familyNotSupported: Int32 { EAFNOSUPPORT }
    package static var addressInUse: Int32 { EADDRINUSE }
    package static var addressNotAvailable: Int32 { EADDRNOTAVAIL }
    /// A connect from an address that this host does not have, or that can't send there.
    package static var noSuchSource: Int32 { ENXIO }
    package static var networkUnreachable: Int32 { ENETUNREACH }
    package static var connectionAborted: Int32 { ECONNABORTED }
    package static var connectionReset: Int32 { ECONNRESET }
    /// A connect to a Unix socket that this process itself listens at.
    package static var ofItself: Int32 { EDEADLK }
    package static var noBufferSpace: Int32 { ENOBUFS }
    package static var timedOut: Int32 { ETIMEDOUT }
    package static var connectionRefused: Int32 { ECONNREFUSED }
    package static var hostDown: Int32 { EHOSTDOWN }
    package static var hostUnreachable: Int32 { EHOSTUNREACH }

    /// A failed connect to a Unix socket, as TCP would put it: nobody listens there. A full accept queue (EAGAIN) would be a
    /// SYN that nobody answers; here nothing tells when there is room again, so it is a refusal, as for nginx. EACCES stays: it
    /// is this node's user that may not.
    package static func ofUnixConnect(_ error: Int32) -> Int32 {
        switch error {
        case ENOENT, EAGAIN, ENOTDIR, ELOOP, EPROTOTYPE: ECONNREFUSED
        default: error
        }
    }

    /// True for errors caused by the peer or the path to it, false for errors of this node (R13, R15).
    package static func isOfPeer(_ error: Int32) -> Bool {
        switch error {
        case connectionReset, brokenPipe, timedOut, connectionRefused, connectionAborted, hostUnreachable,
            networkUnreachable, hostDown, protocolError, protocolUnavailable:
            true
        default: false
        }
    }
}
