import CLinux

/// What a call failed with, for a message that has no better words for it: `error ENOSPC from the kernel`.
/// - Parameter error: an errno, positive.
package func kernelError(_ error: some BinaryInteger) -> String {
    "error \(String(cString: cl_error_name(Int32(clamping: error)))) from the kernel"
}
