import Glibc
import Testing

@testable import Windhover

@Suite struct HostReportTests {
    /// A host on which all is well.
    var good: HostFacts {
        var facts = HostFacts()
        facts.vendor = "GenuineIntel"
        facts.processor = "Xeon"
        facts.processors = 8
        facts.flags = ["vmx", "lm"]
        facts.kvm = .open(.init(apiVersion: 12))
        facts.memoryTotal = 16 << 30
        facts.memoryAvailable = 8 << 30
        facts.cacheDirectory = "/home/u/.cache/windhover"
        facts.images = ["linux 6.1.0"]
        facts.hasPasst = true
        facts.hasTap = true
        return facts
    }

    func report(_ change: (inout HostFacts) -> Void) -> HostReport {
        var facts = good
        change(&facts)
        return HostReport(facts)
    }

    func check(_ report: HostReport, _ subject: String) -> HostReport.Check? {
        report.checks.first { $0.subject == subject }
    }

    @Test func networks() {
        #expect(check(report { _ in }, "networks")?.finding == "user, tap")
        let without = check(report { $0.hasPasst = false }, "networks")
        #expect(without?.level == .warning)
        #expect(without?.remedy?.contains("apt-get install passt") == true)
        #expect(check(report { $0.hasTap = false }, "networks")?.finding.contains("/dev/net/tun") == true)
        #expect(report { $0.hasPasst = false }.exitStatus == .success, "guests run all the same")
    }

    @Test func aGoodHost() {
        let report = HostReport(good)
        #expect(report.exitStatus == .success)
        #expect(report.checks.allSatisfy { $0.level == .good && $0.remedy == nil })
    }

    /// With an engine that needs no KVM, what KVM lacks is a note and no obstacle.
    @Test func theInterpreterIsAnEngine() {
        let report = report {
            $0.kvm = .closed(EACCES)
            $0.engine = .init(name: "interpreter", reason: "no permission to open /dev/kvm")
        }
        #expect(report.exitStatus == .success)
        #expect(check(report, "/dev/kvm")?.level == .warning)
        #expect(check(report, "/dev/kvm")?.remedy?.contains("usermod") == true)
        #expect(check(report, "engine")?.level == .warning)
        #expect(check(report, "engine")?.finding == "--engine auto takes interpreter: no permission to open /dev/kvm")
        let fast = self.report { $0.engine = .init(name: "kvm", reason: "measured") }
        #expect(check(fast, "engine")?.level == .good)
    }

    @Test func theModuleIsNotLoaded() {
        let intel = report { $0.kvm = .missing }
        #expect(intel.exitStatus == .unavailable)
        #expect(check(intel, "/dev/kvm")?.remedy == "sudo modprobe kvm-intel")
        let amd = report { $0.kvm = .missing; $0.flags = ["svm"] }
        #expect(check(amd, "/dev/kvm")?.remedy == "sudo modprobe kvm-amd")
    }

    @Test func noExtension() {
        let bare = report { $0.kvm = .missing; $0.flags = [] }
        #expect(bare.exitStatus == .unavailable)
        #expect(check(bare, "processor")?.remedy?.contains("firmware") == true)
        #expect(check(bare, "/dev/kvm")?.remedy?.contains("modprobe") == false)
        let nested = report { $0.kvm = .missing; $0.flags = ["hypervisor"] }
        #expect(check(nested, "processor")?.remedy?.contains("nested") == true)
    }

    @Test func noPermission() {
        let member = report { $0.kvm = .closed(EACCES); $0.kvmGroup = "kvm" }
        #expect(member.exitStatus == .notPermitted)
        #expect(check(member, "/dev/kvm")?.remedy?.hasPrefix("sudo usermod -aG kvm $USER") == true)
        let rootsOwn = report { $0.kvm = .closed(EACCES); $0.kvmGroup = "root" }
        #expect(check(rootsOwn, "/dev/kvm")?.remedy?.contains("chgrp kvm") == true)
        let container = report { $0.kvm = .closed(EPERM); $0.isRoot = true }
        #expect(container.exitStatus == .notPermitted)
        #expect(check(container, "/dev/kvm")?.remedy?.contains("container") == true)
    }

    @Test func otherErrorsKeepTheirReason() {
        let report = report { $0.kvm = .closed(ENODEV) }
        #expect(report.exitStatus == .unavailable)
        #expect(check(report, "/dev/kvm")?.finding.contains("No such device") == true)
        #expect(check(report, "/dev/kvm")?.remedy == "sudo modprobe kvm-intel")
    }

    @Test func anOldOrPoorKVM() {
        #expect(report { $0.kvm = .open(.init(apiVersion: 11)) }.exitStatus == .unavailable)
        let poor = report { $0.kvm = .open(.init(apiVersion: 12, missingRequired: ["KVM_CAP_IRQCHIP"])) }
        #expect(poor.exitStatus == .unavailable)
        #expect(check(poor, "KVM abilities")?.finding == "lacks KVM_CAP_IRQCHIP")
        let fair = report { $0.kvm = .open(.init(apiVersion: 12, missingOptional: ["KVM_CAP_SYNC_REGS"])) }
        #expect(fair.exitStatus == .success)
        #expect(check(fair, "KVM abilities")?.level == .warning)
    }

    @Test func pageTableVirtualisationIsExplained() {
        let report = report { $0.flags = []; $0.modules = ["kvm", "kvm_pvm"] }
        #expect(report.exitStatus == .success)
        #expect(check(report, "kvm_pvm")?.level == .warning)
        #expect(check(report, "kvm_pvm")?.finding.contains("emulates") == true)
    }

    @Test func memoryPagesAndImages() {
        let report = report {
            $0.memoryAvailable = 100 << 20
            $0.hugePagesFree = 3
            $0.hugePageSize = 2 << 20
            $0.transparentHugePages = "madvise"
            $0.images = []
            $0.missingPrograms = ["apt-get"]
        }
        #expect(report.exitStatus == .success)
        #expect(check(report, "memory")?.level == .warning)
        #expect(check(report, "huge pages")?.finding == "transparent: madvise, 6 MiB reserved and free")
        #expect(check(report, "images")?.finding.contains("apt-get") == true)
        #expect(check(report, "images")?.remedy?.contains("--kernel") == true)
        #expect(check(self.report { $0.cacheDirectory = nil }, "images")?.level == .warning)
        _ = self.report { $0.hugePagesFree = .max; $0.hugePageSize = .max }
    }

    @Test func everyRemedyIsOneLine() {
        for kvm in [HostFacts.KVMDevice.missing, .closed(EACCES), .closed(EBUSY), .closed(EIO)] {
            for check in report({ $0.kvm = kvm; $0.flags = [] }).checks {
                #expect(!check.finding.contains("\n") && check.remedy?.contains("\n") != true)
            }
        }
    }
}

@Suite struct HostFactsTests {
    @Test func processors() {
        var facts = HostFacts()
        facts.readProcessor(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD  EPYC\nflags\t\t: fpu svm lm\n\nprocessor\t: 1\nflags\t\t: other\n: \n\n:")
        #expect(facts.processors == 2)
        #expect(facts.vendor == "AuthenticAMD")
        #expect(facts.processor == "AMD EPYC")
        #expect(facts.flags == ["fpu", "svm", "lm"])
    }

    @Test func memory() {
        var facts = HostFacts()
        facts.readMemory(
            "MemTotal:       16 kB\nMemAvailable: 8 kB\nHugePages_Free:    5\nHugepagesize:   2048 kB\nBad: x\nMemTotal\nHuge: 99999999999999999999 kB\nMemTotal: 18446744073709551615 kB\n")
        #expect(facts.memoryTotal == 16 << 10)
        #expect(facts.memoryAvailable == 8 << 10)
        #expect(facts.hugePagesFree == 5)
        #expect(facts.hugePageSize == 2 << 20)
    }

    @Test func theWordInBrackets() {
        #expect(HostFacts.selected("always [madvise] never\n") == "madvise")
        #expect(HostFacts.selected("never") == nil)
        #expect(HostFacts.selected("]x[") == nil)
    }

    @Test func thisHost() {
        let facts = HostFacts.gather(store: nil) { _ in .init() }
        #expect(facts.processors > 0)
        #expect(facts.memoryTotal > 0)
        #expect(HostFacts.physicalMemory() ?? 0 > 0)
    }
}
