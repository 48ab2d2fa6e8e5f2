internal import Glibc

/// Why a qcow2 image cannot be opened or made: what a person reads, with the way out.
public enum QCOW2Error: Error, Hashable, Sendable {
    case host(path: String, doing: String, errno: Int32)
    /// Another process has it open for writing, or it is to be written while others read it.
    case inUse(path: String)
    /// The first bytes are not qcow2's.
    case notQCOW2(path: String)
    /// A sound image that asks for something this reader has not.
    case unsupported(path: String, feature: String, remedy: String)
    /// It can be read, but not be written as it is.
    case notWritable(path: String, reason: String, remedy: String)
    case corrupt(path: String, reason: String)
    /// The image is a layer over another one, and nobody said over which.
    case backingNeeded(path: String, name: String, format: String?)
    /// A backing image was given to one that has none.
    case backingNotNamed(path: String)
    case badParameter(String)
}

extension QCOW2Error: CustomStringConvertible {
    public var description: String {
        switch self {
        case .host(let path, let doing, let code): unsafe "cannot \(doing) \(path): \(String(cString: strerror(code)))"
        case .inUse(let path): "\(path) is in use by another process: end that first, or open it for reading only everywhere"
        case .notQCOW2(let path): "\(path) is not a qcow2 image"
        case .unsupported(let path, let feature, let remedy): "\(path): \(feature) is not supported; \(remedy)"
        case .notWritable(let path, let reason, let remedy): "\(path) cannot be written: \(reason); \(remedy)"
        case .corrupt(let path, let reason): "\(path) is damaged: \(reason); `qemu-img check \(path)` says more"
        case .backingNeeded(let path, let name, let format):
            "\(path) is a layer over the \(format.map { $0 + " " } ?? "")image \"\(name)\", which is not opened unless you "
                + "name it: give backing=FILE if you trust it, or backing=none to read zeros in its place"
        case .backingNotNamed(let path): "\(path) has no backing file, yet one was given: leave backing= out"
        case .badParameter(let what): what
        }
    }
}
