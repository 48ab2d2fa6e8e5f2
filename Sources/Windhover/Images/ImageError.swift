import VMCore

/// Why an image could not be found, fetched or kept.
public enum ImageError: ReportableError, Hashable {
    /// There is no image of this name.
    case unknown(String)
    /// Neither XDG_CACHE_HOME nor HOME says where to keep images.
    case noCacheDirectory
    /// The host lacks a program that fetching needs.
    case hostLacks(program: String)
    /// The package manager could not get something, with its own words.
    case packagesUnavailable(what: String, reason: String)
    /// There is no disk of this name to make.
    case unknownDisk(String)
    /// The host lacks a program, which comes with a package.
    case lacksProgram(String, package: String)
    /// A system cannot be put together here as this user; with what would have to be different.
    case cannotMake(String)
    /// What is to be on a disk is more than the disk holds.
    case doesNotFit(content: UInt64, size: UInt64)
    /// A file that would have to be replaced.
    case exists(path: String)
    /// A file that was to be made cannot be.
    case output(path: String, errno: Int32)
    /// What came is not what was announced.
    case damaged(String)
    /// A file of the cache could not be made, read or removed.
    case cache(String)
    /// Ctrl-C.
    case interrupted

    public var exitStatus: ExitStatus {
        switch self {
        case .unknown, .unknownDisk: .noSuchFile
        case .lacksProgram: .unavailable
        case .cannotMake: .notPermitted
        case .doesNotFit, .exists: .badConfiguration
        case .noCacheDirectory, .hostLacks, .packagesUnavailable, .cache, .interrupted: .unavailable
        case .damaged: .badConfiguration
        case .output(_, let code): RunError.status(ofFile: code)
        }
    }

    public var description: String {
        let otherwise = "or boot a kernel of your own with --kernel FILE"
        switch self {
        case .unknown(let name):
            return "there is no image named '\(name)'; the one there is: linux"
        case .noCacheDirectory:
            return "no place to keep images: set XDG_CACHE_HOME or HOME"
        case .hostLacks(let program):
            return
                "the linux image comes from Debian's package manager, and this host has no \(program): "
                + "use a Debian host, \(otherwise)"
        case .packagesUnavailable(let what, let reason):
            return
                "\(what) could not be fetched: \(reason); see that this host reaches its package sources, \(otherwise)"
        case .unknownDisk(let name):
            return "there is no disk named '\(name)' to make; those there are: \(ImageStore.diskNames.joined(separator: ", "))"
        case .lacksProgram(let program, let package):
            return "making a disk takes \(program), which this host lacks: sudo apt-get install \(package)"
        case .cannotMake(let what):
            return what
        case .doesNotFit(let content, let size):
            return
                "what is to be on the disk takes \(ByteCount.text(content)), which does not fit in \(ByteCount.text(size)): "
                + "give a larger --size"
        case .exists(let path):
            return "'\(path)' is there already: name another file, or give --replace"
        case .output(let path, let code):
            return "'\(path)' cannot be made: \(HostError.message(code)); give another file to --output"
        case .damaged(let what):
            return "\(what): fetch it again with hover images fetch linux --update"
        case .cache(let what):
            return what
        case .interrupted:
            return "interrupted; nothing was kept"
        }
    }
}
