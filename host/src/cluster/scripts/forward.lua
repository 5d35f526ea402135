-- Keeps an event for a partition, once, and tells its owner, if there is one.
-- KEYS: the partition, its waiting events. ARGV: the origin's number, the event's number, the number of the event before it that
-- is not answered (0: none), the event, the prefix of channels, the head of the message.
local now = redis.call('HMGET', KEYS[1], 'owner', 'f' .. ARGV[1])
local last = tonumber(now[2] or 0)
if tonumber(ARGV[2]) <= last then
  return {'done'}
end
if tonumber(ARGV[3]) > last then
  return {'gap', last}
end
redis.call('HSET', KEYS[1], 'f' .. ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1] .. ':' .. ARGV[2], ARGV[4])
if now[1] then
  redis.call('PUBLISH', ARGV[5] .. now[1], ARGV[6] .. ARGV[4])
end
return {'done'}
