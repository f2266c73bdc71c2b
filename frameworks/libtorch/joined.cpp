// Joins one version, the file VERSION, to the worker: compiled anew for each version, as a library.
//
// The version is included as it stands; only its `main` gets another name. The types of its model, optimizer and data
// are whatever its functions return.

#include "version.hpp"

#define main version_main
#include VERSION
#undef main

namespace {

using Model = decltype(build_model());
#ifndef INFERS
using Optimizer = decltype(make_optimizer(std::declval<Model&>()));
#endif
using Sets = decltype(load_data());
using Set = typename Sets::first_type;

[[maybe_unused]] constexpr int (*runs_alone)() = version_main;

struct Joined final : Version {
    std::unique_ptr<Model> model_;
    std::unique_ptr<Sets> sets_;

    nlohmann::json constants() const override {
        nlohmann::json found = nlohmann::json::object();
#define CONSTANT(name) found[#name] = name;
        CONSTANTS
#undef CONSTANT
        return found;
    }

    void set_constants([[maybe_unused]] const nlohmann::json& values) override {
#define CONSTANT(name) \
    if (values.contains(#name)) values.at(#name).get_to(name);
        CONSTANTS
#undef CONSTANT
    }

    void build_model() override {
        model_ = std::make_unique<Model>(::build_model());
    }
    std::shared_ptr<torch::nn::Module> model() const override { return model_->ptr(); }

    torch::Tensor forward(torch::Tensor inputs) override { return (*model_)->forward(inputs); }
    double evaluate(torch::Tensor inputs, torch::Tensor labels) override {
        return ::evaluate(*model_, Set(inputs, labels));
    }

    void load_data() override { sets_ = std::make_unique<Sets>(::load_data()); }
    int64_t training_examples() const override { return sets_->first.size().value(); }
    double evaluate_test() override { return ::evaluate(*model_, sets_->second); }
    void batches(bool shuffle, const std::function<bool(torch::Tensor, torch::Tensor)>& use) override {
        if (shuffle)
            each(*::batches<torch::data::samplers::RandomSampler>(sets_->first), use);
        else
            each(*::batches<torch::data::samplers::SequentialSampler>(sets_->first), use);
    }

#ifdef INFERS
    static constexpr auto untrained = "Expected a version that trains. Received: one that does not";
    void make_optimizer() override { throw std::logic_error(untrained); }
    torch::optim::Optimizer& optimizer() override { throw std::logic_error(untrained); }
    torch::Tensor loss_fn(torch::Tensor, torch::Tensor) override { throw std::logic_error(untrained); }
    torch::Tensor train_step(torch::Tensor, torch::Tensor) override { throw std::logic_error(untrained); }
#else
    std::unique_ptr<Optimizer> optimizer_;

    void make_optimizer() override { optimizer_.reset(new Optimizer(::make_optimizer(*model_))); }
    torch::optim::Optimizer& optimizer() override { return *optimizer_; }
    torch::Tensor loss_fn(torch::Tensor inputs, torch::Tensor labels) override {
        return ::loss_fn(*model_, inputs, labels);
    }
    torch::Tensor train_step(torch::Tensor inputs, torch::Tensor labels) override {
        return ::train_step(*model_, *optimizer_, inputs, labels);
    }
#endif

    template <typename Loader>
    static void each(Loader& loader, const std::function<bool(torch::Tensor, torch::Tensor)>& use) {
        for (auto& batch : loader)
            if (!use(batch.data, batch.target)) return;
    }
};

}  // namespace

extern "C" Version* rosetta_version() { return new Joined; }
