// What the worker asks of a version. joined.cpp answers by calling the version's own functions, whatever their types.

#pragma once

#include <functional>
#include <memory>

#include <nlohmann/json.hpp>
#include <torch/torch.h>

struct Version {
    virtual ~Version() = default;

    /// The constants that the version declares, by name.
    virtual nlohmann::json constants() const = 0;
    virtual void set_constants(const nlohmann::json& values) = 0;

    virtual void build_model() = 0;
    virtual void make_optimizer() = 0;
    virtual std::shared_ptr<torch::nn::Module> model() const = 0;
    virtual torch::optim::Optimizer& optimizer() = 0;

    virtual torch::Tensor forward(torch::Tensor inputs) = 0;
    virtual torch::Tensor loss_fn(torch::Tensor inputs, torch::Tensor labels) = 0;
    virtual torch::Tensor train_step(torch::Tensor inputs, torch::Tensor labels) = 0;
    virtual double evaluate(torch::Tensor inputs, torch::Tensor labels) = 0;

    /// Read the data. Batches and `evaluate_test` use what was read last.
    virtual void load_data() = 0;
    virtual int64_t training_examples() const = 0;
    virtual double evaluate_test() = 0;
    /// One epoch of the version's own loader over the training data; `use` ends it by returning false.
    virtual void batches(bool shuffle, const std::function<bool(torch::Tensor, torch::Tensor)>& use) = 0;
};
