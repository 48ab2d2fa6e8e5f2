import VMCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What a host's facts mean for running guests, with the exact command that mends each thing.
///
/// Pure: the same facts make the same report.
public struct HostReport: Hashable, Sendable {
    public enum Level: Hashable, Sendable {
        case good
        /// Guests run, but something is slower or missing.
        case warning
        /// No guest runs until this is mended.
        case bad
    }

    public struct Check: Hashable, Sendable {
        public let level: Level
        /// What was looked at, in a word or two.
        public let subject: String
        public let finding: String
        /// What mends it: a command, or one sentence.
        public let remedy: String?

        init(_ level: Level, _ subject: String, _ finding: String, remedy: String? = nil) {
            self.level = level
            self.subject = subject
            self.finding = finding
            self.remedy = remedy
        }
    }

    public let checks: [Check]
    /// `success` where a guest can run, else the status that `hover run` would end with.
    public let exitStatus: ExitStatus

    public init(_ facts: HostFacts) {
        var checks = [Self.processor(facts)]
        let (device, status) = Self.device(facts)
        checks.append(device)
        if case .open(let kvm) = facts.kvm { checks += Self.capabilities(kvm) }
        if let check = Self.pageTableVirtualisation(facts) { checks.append(check) }
        checks.append(Self.memory(facts))
        checks.append(Self.hugePages(facts))
        checks.append(Self.images(facts))
        checks.append(Self.networks(facts))
        if let engine = facts.engine {
            // Guests run: what KVM lacks makes them slower, and stops none.
            checks = checks.map { $0.level == .bad ? Check(.warning, $0.subject, $0.finding, remedy: $0.remedy) : $0 }
            checks.append(Self.engine(engine))
            self.checks = checks
            exitStatus = .success
            return
        }
        self.checks = checks
        exitStatus = status != .success ? status : checks.contains { $0.level == .bad } ? .unavailable : .success
    }

    private static func processor(_ facts: HostFacts) -> Check {
        let name = facts.processor.isEmpty ? "unknown" : facts.processor
        let count = "\(facts.processors) CPU\(facts.processors == 1 ? "" : "s")"
        let extension_ = facts.flags.contains("vmx") ? "VT-x" : facts.flags.contains("svm") ? "AMD-V" : nil
        if let extension_ { return Check(.good, "processor", "\(name), \(count), \(extension_)") }
        var isOpen = false
        if case .open = facts.kvm { isOpen = true }
        return Check(
            .warning, "processor", "\(name), \(count), shows neither VT-x nor AMD-V",
            remedy: isOpen
                ? nil
                : facts.flags.contains("hypervisor")
                    ? "this host is a virtual machine itself: switch nested virtualisation on where it runs"
                    : "switch virtualisation (VT-x, AMD-V or SVM) on in the firmware's settings")
    }

    /// The module that drives this processor's virtualisation.
    private static func module(_ facts: HostFacts) -> String {
        facts.flags.contains("svm") || facts.vendor == "AuthenticAMD" || facts.vendor == "HygonGenuine"
            ? "kvm-amd" : "kvm-intel"
    }

    private static func device(_ facts: HostFacts) -> (Check, ExitStatus) {
        let subject = "/dev/kvm"
        switch facts.kvm {
        case .open:
            return (Check(.good, subject, "opens"), .success)
        case .missing:
            let hasExtension = facts.flags.contains("vmx") || facts.flags.contains("svm")
            return (
                Check(
                    .bad, subject, "is not there",
                    remedy: hasExtension
                        ? "sudo modprobe \(module(facts))"
                        : "KVM needs VT-x or AMD-V, which this processor does not show"),
                .unavailable
            )
        case .closed(let code) where code == EACCES || code == EPERM:
            let group = facts.kvmGroup ?? "kvm"
            // Root's group, or root itself refused (a container's rule): joining a group does not help.
            let remedy: String
            if facts.isRoot {
                remedy = "even root may not open it here: in a container, pass the device in (--device /dev/kvm)"
            } else if group == "root" {
                remedy = "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm && sudo usermod -aG kvm $USER, then log in again"
            } else {
                remedy = "sudo usermod -aG \(group) $USER, then log in again"
            }
            return (Check(.bad, subject, "may not be opened by this user", remedy: remedy), .notPermitted)
        case .closed(let code):
            let remedy: String? =
                switch code {
                case ENODEV, ENXIO: "sudo modprobe \(module(facts))"
                case EBUSY: "another hypervisor holds the processor: end it, or remove its kernel module"
                default: nil
                }
            return (
                Check(.bad, subject, "does not open: \(HostError.message(code))", remedy: remedy), .unavailable
            )
        }
    }

    private static func capabilities(_ kvm: HostFacts.KVMFacts) -> [Check] {
        var checks: [Check] = []
        if let version = kvm.apiVersion {
            checks.append(
                version == 12
                    ? Check(
                        .good, "KVM interface",
                        "version 12" + (kvm.maximumCPUs > 0 ? ", up to \(kvm.maximumCPUs) CPUs a guest" : ""))
                    : version < 0
                    ? Check(
                        .bad, "KVM interface", "/dev/kvm does not answer as KVM does: \(HostError.message(0 &- version))",
                        remedy: "see what it is: ls -l /dev/kvm shows a character device 10, 232 on a sound host")
                    : Check(
                        .bad, "KVM interface", "version \(version), and 12 is needed",
                        remedy: "run a Linux kernel that is not older than 2.6.22"))
        }
        if !kvm.missingRequired.isEmpty {
            checks.append(
                Check(
                    .bad, "KVM abilities", "lacks " + kvm.missingRequired.joined(separator: ", "),
                    remedy: "run a newer Linux kernel on this host"))
        } else if !kvm.missingOptional.isEmpty {
            checks.append(
                Check(.warning, "KVM abilities", "all that is needed; lacks " + kvm.missingOptional.joined(separator: ", ")))
        } else if kvm.apiVersion != nil {
            checks.append(Check(.good, "KVM abilities", "all that Windhover uses"))
        }
        return checks
    }

    private static func pageTableVirtualisation(_ facts: HostFacts) -> Check? {
        guard facts.modules.contains("kvm_pvm") else { return nil }
        return Check(
            .warning, "kvm_pvm",
            "KVM works without VT-x or AMD-V here: it emulates a guest's kernel, at some 2 million instructions a "
                + "second; those it lacks the software CPU executes, but for AVX in a guest's kernel",
            remedy: "for any kernel at full speed use a host with VT-x or AMD-V")
    }

    private static func engine(_ engine: HostFacts.EngineFacts) -> Check {
        let finding = "--engine auto takes \(engine.name): \(engine.reason)"
        return engine.name == "kvm"
            ? Check(.good, "engine", finding)
            : Check(.warning, "engine", finding, remedy: "guests run, slower than with KVM on the processor itself")
    }

    private static func memory(_ facts: HostFacts) -> Check {
        let text = "\(ByteCount.text(facts.memoryTotal)), \(ByteCount.text(facts.memoryAvailable)) available"
        return facts.memoryAvailable >= 512 << 20
            ? Check(.good, "memory", text)
            : Check(.warning, "memory", text, remedy: "give guests less than the default: --memory 128M")
    }

    private static func hugePages(_ facts: HostFacts) -> Check {
        let transparent = facts.transparentHugePages.map { "transparent: \($0)" } ?? "no transparent ones"
        let (bytes, overflow) = facts.hugePagesFree.multipliedReportingOverflow(by: facts.hugePageSize)
        let reserved = facts.hugePagesFree == 0 || overflow ? "none reserved" : "\(ByteCount.text(bytes)) reserved and free"
        return Check(.good, "huge pages", "\(transparent), \(reserved)")
    }

    private static func networks(_ facts: HostFacts) -> Check {
        let tap = facts.hasTap ? "tap" : "no tap, for want of /dev/net/tun"
        guard facts.hasPasst else {
            return Check(
                .warning, "networks", "\(tap); no user, for want of passt", remedy: "sudo apt-get install passt")
        }
        return Check(.good, "networks", "user, \(tap)")
    }

    private static func images(_ facts: HostFacts) -> Check {
        guard facts.cacheDirectory != nil else {
            return Check(
                .warning, "images", "no place to keep them", remedy: "set XDG_CACHE_HOME or HOME")
        }
        if !facts.images.isEmpty {
            return Check(.good, "images", facts.images.joined(separator: ", "))
        }
        guard facts.missingPrograms.isEmpty else {
            return Check(
                .warning, "images",
                "none fetched, and none can be: this host has no " + facts.missingPrograms.joined(separator: ", "),
                remedy: "boot a kernel of your own: hover run --kernel FILE")
        }
        return Check(.good, "images", "none fetched yet; hover run linux fetches one")
    }
}
